"""What the consumer, the producers and the topic administration on kafka-python share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kafka.errors as kafka_errors

from centinela.errors import DependencyUnavailable, InvalidRecord, ProducerFenced, TransactionAborted
from centinela.kafka.guard import DeadlineExceeded
from centinela.kafka.limits import Limits

STALE_MEMBER = (
    kafka_errors.CommitFailedError, kafka_errors.IllegalGenerationError, kafka_errors.UnknownMemberIdError,
    kafka_errors.RebalanceInProgressError,
)
TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


def common_config(bootstrap_servers: str, limits: Limits) -> dict[str, Any]:
    """What consumers, producers and the admin client share."""
    return {
        "bootstrap_servers": bootstrap_servers.split(","), "request_timeout_ms": limits.request_ms,
        "bootstrap_timeout_ms": limits.request_ms, "retry_backoff_ms": int(limits.retry_backoff_s * 1000),
        "reconnect_backoff_max_ms": int(limits.reconnect_max_s * 1000),
    }


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Raise the client's errors as the port's."""
    try:
        yield
    except TOO_LARGE as error:
        raise InvalidRecord("too_large", str(error)) from error
    except kafka_errors.FencedInstanceIdError as error:
        raise ProducerFenced(f"another process took over this member of the group: {error!r}") from error
    except STALE_MEMBER as error:
        raise TransactionAborted(f"the consumer group moved on: {error!r}") from error
    except (kafka_errors.RetriableError, kafka_errors.KafkaConnectionError, DeadlineExceeded, OSError) as error:
        raise DependencyUnavailable(f"Kafka does not answer: {error!r}", dependency="kafka") from error
