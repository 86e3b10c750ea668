"""The port's producers on kafka-python: idempotent, and transactional.

Its queue has no bound, so the plain producer counts its bytes. Its transaction calls have no time-out, so each runs
under a deadline.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import kafka.errors as kafka_errors
import structlog
from kafka.producer.kafka import KafkaProducer
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as KafkaPartition

from centinela.errors import DependencyUnavailable, ProducerFenced, TransactionAborted
from centinela.kafka.access import Access
from centinela.kafka.connection import Connection
from centinela.kafka.kafka_python.common import common_config, mapped_errors
from centinela.kafka.kafka_python.consumer import KafkaPythonConsumer
from centinela.kafka.port import Consumer, Delivery, Outgoing, TopicPartition
from centinela.kafka.timeouts import MAX_REQUEST_BYTES, QUEUE_BYTES, TIMEOUTS, KafkaTimeouts
from centinela.liveness.deadline import DeadlineExceeded, DeadlineRunner

T = TypeVar("T")
_OVERDUE = 1.2
"""The client settles each record within ``delivery_s``. One that is still open after this many times as long is stuck:
it waits for ever for a producer id, for instance, where every broker was killed while it asked for one."""
_log = structlog.get_logger(__name__)
_FENCED = (kafka_errors.ProducerFencedError, kafka_errors.InvalidProducerEpochError)


class _Delivery:
    def __init__(self, future: Any) -> None:
        self._future = future

    def wait(self, timeout_s: float) -> None:
        with mapped_errors():
            self._future.get(timeout_s)


def _config(brokers: str | Access, linger_ms: int, timeouts: KafkaTimeouts) -> dict[str, Any]:
    return common_config(brokers, timeouts) | {
        "acks": "all",
        "enable_idempotence": True,
        "compression_type": "zstd",
        "linger_ms": linger_ms,
        "batch_size": 128 * 1024,
        "max_request_size": MAX_REQUEST_BYTES,
        "max_block_ms": timeouts.request_ms,
        "allow_auto_create_topics": False,
        "metrics_enabled": False,
    }


class KafkaPythonProducer:
    """``Producer`` of the port. A client that leaves a record open is replaced: what it still had is not acknowledged,
    and may be sent again."""

    def __init__(self, brokers: str | Access, linger_ms: int = 5, timeouts: KafkaTimeouts = TIMEOUTS) -> None:
        self._timeouts = timeouts
        self._config = _config(brokers, linger_ms, timeouts) | {"delivery_timeout_ms": int(timeouts.delivery_s * 1000)}
        self._connection: Connection[KafkaProducer] = Connection(self._connect)
        self._room = threading.Condition()
        self._numbers = itertools.count()
        self._open: dict[int, tuple[float, int]] = {}
        """When each unsettled record was sent, the oldest first, and its size."""
        self._queued = 0
        self._failure: BaseException | None = None

    def send(self, record: Outgoing) -> Delivery:
        size = len(record.value or b"") + len(record.key or b"") + 100
        number = next(self._numbers)
        self._replace_stuck()
        with mapped_errors():
            client = self._connection.get()
            with self._room:
                if not self._room.wait_for(lambda: self._queued + size <= QUEUE_BYTES, self._timeouts.queue_s):
                    raise DependencyUnavailable(
                        "the producer's queue is full: Kafka accepts nothing", dependency="kafka"
                    )
                self._queued += size
                self._open[number] = (time.monotonic(), size)
            try:
                future = client.send(record.topic, record.value, record.key, list(record.headers), record.partition)
            except BaseException:
                self._release(number)
                raise
        future.add_both(self._settle, number)
        return _Delivery(future)

    def flush(self, timeout_s: float) -> None:
        with mapped_errors():
            if (client := self._connection.current) is not None:
                client.flush(timeout_s)
            failure = self._failure
            self._failure = None
            if failure is not None:
                raise failure

    def close(self) -> None:
        if (client := self._connection.drop()) is not None:
            with suppress(kafka_errors.KafkaError):
                client.close(timeout=self._timeouts.request_s)

    def _connect(self) -> KafkaProducer:
        with mapped_errors():
            return KafkaProducer(**self._config)

    def _replace_stuck(self) -> None:
        with self._room:
            oldest = next(iter(self._open.values()), None)
            if oldest is None or time.monotonic() - oldest[0] <= _OVERDUE * self._timeouts.delivery_s:
                return
            _log.warning(
                "producer.replaced", open_records=len(self._open), oldest_s=round(time.monotonic() - oldest[0], 1)
            )
            self._open.clear()
            self._queued = 0
            self._room.notify_all()
        if (client := self._connection.drop()) is not None:
            threading.Thread(
                target=_close, args=(client, self._timeouts.request_s), name="kafka-close", daemon=True
            ).start()

    def _settle(self, number: int, result: object) -> None:
        if isinstance(result, BaseException):
            self._failure = result
        self._release(number)

    def _release(self, number: int) -> None:
        with self._room:
            _, size = self._open.pop(number, (0.0, 0))
            self._queued -= size
            self._room.notify_all()


class KafkaPythonTransactionalProducer:
    """``TransactionalProducer`` of the port. Consumers must be of this client too: the commit carries their
    membership."""

    def __init__(self, brokers: str | Access, transactional_id: str, timeouts: KafkaTimeouts = TIMEOUTS) -> None:
        self._timeouts = timeouts
        self._config = _config(brokers, 5, timeouts) | {
            "transactional_id": transactional_id,
            "transaction_timeout_ms": int(timeouts.transaction_s * 1000),
            "delivery_timeout_ms": int(timeouts.commit_s * 1000),
        }
        self._producer: KafkaProducer | None = None
        self._runner: DeadlineRunner | None = None
        self._initialised = False
        self._open = False
        self._fenced = False
        self._commit_by = 0.0

    def init(self) -> None:
        with self._fencing(), mapped_errors():
            if self._producer is None:
                self._producer = KafkaProducer(**self._config)
                self._runner = DeadlineRunner("kafka-transactions")
            try:
                self._bounded(self._producer.init_transactions, self._timeouts.request_s)
            except (kafka_errors.RetriableError, DeadlineExceeded):
                self._discard()
                raise
        self._initialised = True

    def begin(self) -> None:
        with self._fencing():
            self._ready().begin_transaction()
        self._open = True
        self._commit_by = time.monotonic() + self._timeouts.commit_s

    def send_all(self, records: Sequence[Outgoing]) -> None:
        with self._fencing(), self._aborting():
            send = self._ready().send
            for record in records:
                send(record.topic, record.value, record.key, list(record.headers), record.partition)

    def commit(self, offsets: Mapping[TopicPartition, int], consumer: Consumer) -> None:
        producer = self._ready()
        with self._fencing(), self._aborting():
            if offsets:
                if not isinstance(consumer, KafkaPythonConsumer):
                    raise TypeError("kafka-python commits offsets only of its own consumer")
                with consumer.committing(), mapped_errors():
                    metadata = _membership(offsets, consumer)
                    positions = {KafkaPartition(*p): OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()}
                    self._bounded(lambda: producer.send_offsets_to_transaction(positions, metadata), self._left())
            self._bounded(producer.commit_transaction, self._left())
        self._open = False

    def abort(self) -> None:
        if self._producer is None or not self._initialised:
            self.init()
        elif self._open:
            try:
                with self._fencing():
                    self._bounded(self._producer.abort_transaction, self._timeouts.commit_s)
            except (kafka_errors.KafkaError, DeadlineExceeded):
                self._discard()
                self.init()
        self._open = False

    def close(self) -> None:
        if self._producer is None:
            return
        if self._open:
            with suppress(kafka_errors.KafkaError, DeadlineExceeded):
                self._bounded(self._producer.abort_transaction, self._timeouts.request_s)
        _close(self._take(), self._timeouts.request_s)

    def _ready(self) -> KafkaProducer:
        if self._fenced:
            raise ProducerFenced("this producer was fenced before")
        if self._producer is None or not self._initialised:
            raise TransactionAborted("the producer lost its transaction: abort first")
        return self._producer

    def _left(self) -> float:
        return max(0.1, self._commit_by - time.monotonic())

    def _bounded(self, call: Callable[[], T], timeout_s: float) -> T:
        assert self._runner is not None
        return self._runner.run(call, timeout_s)

    def _discard(self) -> None:
        if self._producer is not None:
            threading.Thread(
                target=_close, args=(self._take(), self._timeouts.commit_s + 1.0), name="kafka-close", daemon=True
            ).start()

    def _take(self) -> KafkaProducer:
        producer = self._producer
        self._producer = None
        self._initialised = False
        self._open = False
        if self._runner is not None:
            self._runner.close()
        return producer

    @contextmanager
    def _fencing(self) -> Iterator[None]:
        if self._fenced:
            raise ProducerFenced("this producer was fenced before")
        try:
            yield
        except _FENCED as error:
            self._fenced = True
            raise ProducerFenced(f"another producer took over {self._config['transactional_id']}: {error!r}") from error

    @contextmanager
    def _aborting(self) -> Iterator[None]:
        """Whatever fails in an open transaction must be aborted; where there is no answer, by another producer."""
        try:
            with mapped_errors():
                yield
        except DependencyUnavailable:
            self._discard()
            raise
        except _FENCED:
            raise
        except kafka_errors.KafkaError as error:
            raise TransactionAborted(f"the transaction failed: {error!r}") from error


def _close(producer: KafkaProducer, timeout_s: float) -> None:
    """A producer ends only after its last record was delivered or timed out; ended sooner, it leaves its thread
    behind."""
    with suppress(kafka_errors.KafkaError):
        producer.close(timeout=timeout_s)


def _membership(offsets: Mapping[TopicPartition, int], consumer: KafkaPythonConsumer) -> object:
    """The consumer's group metadata; a commit by one that owns none of the partitions would not be fenced."""
    metadata = consumer.group_metadata()
    if metadata.generation_id < 0 or not consumer.assignment() >= set(offsets):
        raise TransactionAborted("the partitions are no longer assigned to this consumer")
    return metadata
