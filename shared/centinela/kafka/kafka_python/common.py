"""What the consumer, the producers and the topic administration on kafka-python share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kafka.errors as kafka_errors

from centinela.errors import InvalidRecord, ProducerFenced, TransactionAborted
from centinela.kafka.access import Access
from centinela.kafka.confluent.common import ask_why
from centinela.kafka.refusals import forbidden, no_answer, unknown
from centinela.kafka.timeouts import KafkaTimeouts
from centinela.liveness.deadline import DeadlineExceeded

STALE_MEMBER = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.RebalanceInProgressError,
)
_UNKNOWN = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
)
_ASK_S, _ASK_EVERY_S = 2.0, 10.0
TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


class _Doubt:
    """Finds out whether a missing answer is a refusal. kafka-python cannot: to it a wrong password is one more lost
    connection.

    So librdkafka connects once, at intervals, and only where something can be refused: encryption or a user.
    """

    def __init__(self) -> None:
        self._access: Access | None = None
        self._asked_at = float("-inf")

    def about(self, access: Access) -> None:
        """The process connects to *access*."""
        if access != self._access:
            self._access = access
            self._asked_at = float("-inf")

    def settle(self) -> None:
        """Connect, unless that was done recently."""
        now = time.monotonic()
        if self._access is not None and self._access.protocol != "PLAINTEXT" and now - self._asked_at > _ASK_EVERY_S:
            self._asked_at = now
            ask_why(self._access, _ASK_S)


_DOUBT = _Doubt()


def common_config(brokers: str | Access, timeouts: KafkaTimeouts) -> dict[str, Any]:
    """What consumers, producers and the admin client share."""
    access = Access.to(brokers)
    _DOUBT.about(access)
    return access.kafka_python() | {
        "request_timeout_ms": timeouts.request_ms,
        "bootstrap_timeout_ms": timeouts.request_ms,
        "metadata_max_age_ms": int(timeouts.metadata_s * 1000),
        "retry_backoff_ms": int(timeouts.retry_backoff_s * 1000),
        "reconnect_backoff_max_ms": int(timeouts.reconnect_max_s * 1000),
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
    except _UNKNOWN as error:
        raise unknown(str(error)) from error
    except kafka_errors.AuthorizationError as error:
        raise forbidden(str(error)) from error
    except (kafka_errors.RetriableError, kafka_errors.KafkaConnectionError, DeadlineExceeded, OSError) as error:
        _DOUBT.settle()
        raise no_answer(f"Kafka does not answer: {error!r}") from error
