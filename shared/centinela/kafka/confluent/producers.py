"""The port's producers on confluent-kafka: idempotent, and transactional."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as RdProducer
from confluent_kafka import TopicPartition as RdPartition

from centinela.errors import DependencyUnavailable, InvalidRecord, ProducerFenced, TransactionAborted
from centinela.kafka.access import Access
from centinela.kafka.confluent.common import LOG, common_config, mapped_errors, port_error
from centinela.kafka.confluent.consumer import ConfluentConsumer
from centinela.kafka.port import Consumer, Delivery, Outgoing, TopicPartition
from centinela.kafka.refusals import no_answer
from centinela.kafka.timeouts import MAX_REQUEST_BYTES, QUEUE_BYTES, TIMEOUTS, KafkaTimeouts
from centinela.liveness.deadline import DeadlineExceeded, DeadlineRunner

_ANY_PARTITION = -1


def _config(brokers: str | Access, linger_ms: int, timeouts: KafkaTimeouts) -> dict[str, Any]:
    return common_config(brokers, timeouts) | {
        "acks": "all",
        "enable.idempotence": True,
        "compression.type": "zstd",
        "linger.ms": linger_ms,
        "partitioner": "murmur2_random",
        "message.max.bytes": MAX_REQUEST_BYTES,
        "queue.buffering.max.kbytes": QUEUE_BYTES // 1024,
        "queue.buffering.max.messages": 500_000,
        "batch.size": MAX_REQUEST_BYTES,
        "allow.auto.create.topics": False,
    }


def _queue(
    client: RdProducer, record: Outgoing, deadline: float, on_delivery: Callable[..., None] | None = None
) -> None:
    """Hand *record* to librdkafka, waiting for room until *deadline* (monotonic) at most."""
    topic, value, key, headers, partition = record
    while True:
        try:
            client.produce(
                topic,
                value,
                key,
                _ANY_PARTITION if partition is None else partition,
                on_delivery,
                headers=list(headers) or None,
            )
            return
        except BufferError:
            if time.monotonic() >= deadline:
                raise no_answer("the producer's queue is full: Kafka accepts nothing") from None
            client.poll(0.05)


class _Delivery:
    def __init__(self, client: RdProducer) -> None:
        self._client = client
        self.done = False
        self.error: KafkaError | None = None

    def wait(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.done:
            left = deadline - time.monotonic()
            if left <= 0:
                raise no_answer(f"no acknowledgement within {timeout_s:g} s")
            with mapped_errors():
                self._client.poll(min(left, 0.01))
        if self.error is not None:
            raise port_error(self.error)


class ConfluentProducer:
    """``Producer`` of the port."""

    def __init__(self, brokers: str | Access, linger_ms: int = 5, timeouts: KafkaTimeouts = TIMEOUTS) -> None:
        config = _config(brokers, linger_ms, timeouts) | {"delivery.timeout.ms": int(timeouts.delivery_s * 1000)}
        self._timeouts = timeouts
        self._client: RdProducer | None = RdProducer(config)
        self._failure: KafkaError | None = None

    def send(self, record: Outgoing) -> Delivery:
        client = self._alive()
        delivery = _Delivery(client)

        def settle(error: KafkaError | None, _message: object) -> None:
            delivery.error = error
            delivery.done = True
            self._failure = error or self._failure

        with mapped_errors():
            _queue(client, record, time.monotonic() + self._timeouts.queue_s, settle)
            client.poll(0)
        return delivery

    def flush(self, timeout_s: float) -> None:
        with mapped_errors():
            left = self._alive().flush(timeout_s)
        if left > 0:
            raise no_answer(f"{left} records were not acknowledged within {timeout_s:g} s")
        failure = self._failure
        self._failure = None
        if failure is not None:
            raise port_error(failure)

    def close(self) -> None:
        client = self._client
        self._client = None
        if client is not None:
            with suppress(KafkaException):  # the call that failed has reported it
                client.flush(self._timeouts.request_s)

    def _alive(self) -> RdProducer:
        if self._client is None:
            raise RuntimeError("the producer is closed")
        return self._client


class ConfluentTransactionalProducer:
    """``TransactionalProducer`` of the port. Consumers must be of this client too: the commit carries their membership.

    librdkafka's own time-outs are not reliable: without the broker, ``send_offsets_to_transaction`` may never return.
    So its blocking calls have a deadline; a client that is stuck is left behind, and fenced by the initialisation of
    the next one.
    """

    def __init__(self, brokers: str | Access, transactional_id: str, timeouts: KafkaTimeouts = TIMEOUTS) -> None:
        self._timeouts = timeouts
        self._config = _config(brokers, 5, timeouts) | {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": int(timeouts.transaction_s * 1000),
            "delivery.timeout.ms": int(timeouts.commit_s * 1000),
        }
        self._client: RdProducer | None = None
        self._runner = DeadlineRunner("kafka-transaction")
        self._initialised = False
        self._open = False
        self._commit_by = 0.0

    def init(self) -> None:
        if self._client is None:
            self._client = RdProducer(self._config)
        client = self._client
        with mapped_errors(lambda: client.poll(0)):
            self._with_deadline(self._client.init_transactions, self._timeouts.request_s)
        self._initialised = True

    def begin(self) -> None:
        with mapped_errors():
            self._ready().begin_transaction()
        self._open = True
        self._commit_by = time.monotonic() + self._timeouts.commit_s

    def send_all(self, records: Sequence[Outgoing]) -> None:
        client = self._ready()
        try:
            with mapped_errors():
                deadline = time.monotonic() + self._left()
                for record in records:
                    _queue(client, record, deadline)
                client.poll(0)
        except DependencyUnavailable as error:
            self._give_up(error)

    def commit(self, offsets: Mapping[TopicPartition, int], consumer: Consumer) -> None:
        client = self._ready()
        if offsets:
            metadata = _membership(offsets, consumer)
            positions = [RdPartition(*p, offset) for p, offset in offsets.items()]
            self._until_answered(lambda left: client.send_offsets_to_transaction(positions, metadata, left))
        self._until_answered(client.commit_transaction)
        self._open = False

    def abort(self) -> None:
        if self._client is None or not self._initialised:
            self.init()
        elif self._open:
            try:
                self._with_deadline(self._client.abort_transaction, self._timeouts.commit_s)
            except DependencyUnavailable:
                self.init()
            except KafkaException as raised:
                if isinstance(port_error(raised.args[0]), ProducerFenced):
                    raise port_error(raised.args[0]) from raised
                self._discard()
                self.init()
        self._open = False

    def close(self) -> None:
        if self._client is not None and self._open:
            try:
                with mapped_errors():
                    self._with_deadline(self._client.abort_transaction, self._timeouts.request_s)
            except (DependencyUnavailable, ProducerFenced, TransactionAborted, KafkaException):
                LOG.warning("the open transaction could not be aborted; the broker ends it after its time-out")
        self._discard()
        self._runner.close()

    def _ready(self) -> RdProducer:
        if self._client is None or not self._initialised:
            raise TransactionAborted("the producer lost its transaction: abort first")
        return self._client

    def _left(self) -> float:
        return max(0.1, self._commit_by - time.monotonic())

    def _until_answered(self, call: Callable[[float], None]) -> None:
        """Repeat *call* while librdkafka allows it; at the deadline give the transaction up."""
        while True:
            try:
                self._with_deadline(call, self._left())
                return
            except KafkaException as raised:
                mapped = port_error(raised.args[0])
                if isinstance(mapped, InvalidRecord):
                    raise TransactionAborted(f"a record was refused: {mapped}") from raised
                if not isinstance(mapped, DependencyUnavailable):
                    raise mapped from raised
                if time.monotonic() >= self._commit_by:
                    self._give_up(mapped)

    def _with_deadline(self, call: Callable[[float], None], timeout_s: float) -> None:
        """Do *call*, which is given its time-out; where it takes much longer, leave client and runner behind."""
        try:
            self._runner.run(lambda: call(timeout_s), timeout_s + self._timeouts.request_s)
        except DeadlineExceeded as stuck:
            self._runner.close()
            self._runner = DeadlineRunner("kafka-transaction")
            self._forget()
            raise DependencyUnavailable(
                "librdkafka does not return from a call of a transaction", dependency="kafka"
            ) from stuck

    def _give_up(self, error: DependencyUnavailable) -> NoReturn:
        self._discard()
        raise error

    def _discard(self) -> None:
        client = self._client
        self._forget()
        if client is not None:
            client.purge()

    def _forget(self) -> None:
        self._client = None
        self._initialised = False
        self._open = False


def _membership(offsets: Mapping[TopicPartition, int], consumer: Consumer) -> Any:
    """The consumer's group metadata; a commit by one that owns none of the partitions would not be fenced."""
    if not isinstance(consumer, ConfluentConsumer):
        raise TypeError("confluent-kafka commits offsets only of its own consumer")
    if not consumer.assignment() >= set(offsets):
        raise TransactionAborted("the partitions are no longer assigned to this consumer")
    return consumer.group_metadata()
