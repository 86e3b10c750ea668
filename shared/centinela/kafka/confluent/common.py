"""What the consumer and the producers on confluent-kafka (librdkafka) share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as RdProducer

from centinela.errors import InvalidRecord, ProducerFenced, TransactionAborted
from centinela.kafka.access import Access
from centinela.kafka.refusals import REFUSALS, forbidden, no_answer, unknown
from centinela.kafka.timeouts import TIMEOUTS, KafkaTimeouts

LOG = logging.getLogger("centinela.librdkafka")
LOG.addHandler(logging.NullHandler())  # so that a command without configured logs does not print them raw
_FENCED = {
    KafkaError._FENCED,
    KafkaError._FATAL,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.FENCED_INSTANCE_ID,
}
_STALE = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._ASSIGNMENT_LOST,
    KafkaError.STALE_MEMBER_EPOCH,
}
_UNKNOWN = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_SASL_MECHANISM}
FORBIDDEN = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
MISSING = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
UNAVAILABLE = MISSING | {
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._WAIT_COORD,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._QUEUE_FULL,
    KafkaError._DESTROY_BROKER,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
}


def note_refusal(error: KafkaError) -> None:
    """Note it where *error* says that a broker refuses this process: the call that waits only gets a time-out."""
    if error.code() in _UNKNOWN or (error.code() == KafkaError._SSL and "certificate" in error.str()):
        REFUSALS.note(error.str())


def silence(error: KafkaError) -> bool:
    """Whether *error*, reported to a callback, means that brokers do not answer; a refusal is noted."""
    note_refusal(error)
    return error.code() in UNAVAILABLE or REFUSALS.recent() is not None


def ask_why(access: Access, timeout_s: float) -> None:
    """Connect once, so that a refusal is noted where there is one."""
    client = RdProducer(common_config(access, TIMEOUTS))
    with suppress(KafkaException):
        client.list_topics(timeout=timeout_s)
        return
    with suppress(KafkaException):
        client.poll(0)


def common_config(brokers: str | Access, timeouts: KafkaTimeouts) -> dict[str, Any]:
    """What consumers and producers share."""
    return Access.to(brokers).librdkafka() | {
        "error_cb": note_refusal,
        "socket.timeout.ms": max(10, timeouts.request_ms),
        "topic.metadata.refresh.interval.ms": int(timeouts.metadata_s * 1000),
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": int(timeouts.reconnect_max_s * 1000),
        "retry.backoff.ms": max(1, int(timeouts.retry_backoff_s * 1000)),
        "logger": LOG,
    }


def port_error(error: KafkaError) -> Exception:
    """The port's error for librdkafka's; one that the port does not know stays as it is."""
    code = error.code()
    if code in FORBIDDEN:
        return forbidden(error.str())
    if code in _UNKNOWN:
        return unknown(error.str())
    if error.fatal() or code in _FENCED:
        return ProducerFenced(f"another process took over: {error}")
    if code in {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}:
        return InvalidRecord("too_large", str(error))
    if error.txn_requires_abort() or code in _STALE:
        return TransactionAborted(f"the transaction or group moved on: {error}")
    if error.retriable() or code in UNAVAILABLE:
        return no_answer(f"Kafka does not answer: {error}")
    return KafkaException(error)


@contextmanager
def mapped_errors(hear: Callable[[], object] | None = None) -> Iterator[None]:
    """Raise the client's errors as the port's. *hear* lets librdkafka report first what it knows of the cause."""
    try:
        yield
    except KafkaException as raised:
        if hear is not None:
            with suppress(KafkaException):
                hear()
        mapped = port_error(raised.args[0])
        if isinstance(mapped, KafkaException):
            raise
        raise mapped from raised
