"""Transactions on kafka-python. Its transaction calls wait without a time-out, so each runs under a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

import kafka.errors as kafka_errors
from kafka.producer.kafka import KafkaProducer
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as KafkaPartition

from centinela.errors import DependencyUnavailable, ProducerFenced, TransactionAborted
from centinela.kafka.guard import DeadlineExceeded, Guard
from centinela.kafka.kafka_python_adapter import KafkaPythonConsumer, mapped_errors, producer_config
from centinela.kafka.limits import LIMITS, Limits
from centinela.kafka.port import Consumer, Outgoing, TopicPartition

T = TypeVar("T")
_FENCED = (kafka_errors.ProducerFencedError, kafka_errors.InvalidProducerEpochError, kafka_errors.TransactionalIdAuthorizationFailedError)


class KafkaPythonTransactionalProducer:
    """``TransactionalProducer`` of the port. Consumers must be of this client too: the commit carries their membership."""

    def __init__(self, bootstrap_servers: str, transactional_id: str, limits: Limits = LIMITS) -> None:
        self._limits = limits
        self._config = producer_config(bootstrap_servers, 5, limits) | {
            "transactional_id": transactional_id, "transaction_timeout_ms": int(limits.transaction_s * 1000),
            "delivery_timeout_ms": int(limits.commit_s * 1000),
        }
        self._producer: KafkaProducer | None = None
        self._guard: Guard | None = None
        self._initialised = self._open = self._fenced = False
        self._commit_by = 0.0

    def init(self) -> None:
        with self._fencing(), mapped_errors():
            if self._producer is None:
                self._producer = KafkaProducer(**self._config)
                self._guard = Guard("kafka-transactions")
            try:
                self._bounded(self._producer.init_transactions, self._limits.request_s)
            except (kafka_errors.RetriableError, DeadlineExceeded):
                self._discard()
                raise
        self._initialised = True

    def begin(self) -> None:
        with self._fencing():
            self._ready().begin_transaction()
        self._open = True
        self._commit_by = time.monotonic() + self._limits.commit_s

    def send_all(self, records: Sequence[Outgoing]) -> None:
        with self._fencing(), self._aborting():
            send = self._ready().send
            for record in records:
                send(record.topic, record.value, record.key, list(record.headers), record.partition)

    def commit(self, offsets: Mapping[TopicPartition, int], consumer: Consumer) -> None:
        producer = self._ready()
        with self._fencing(), self._aborting():
            if offsets:
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
                    self._bounded(self._producer.abort_transaction, self._limits.commit_s)
            except (kafka_errors.KafkaError, DeadlineExceeded):
                self._discard()
                self.init()
        self._open = False

    def close(self) -> None:
        if self._producer is None:
            return
        if self._open:
            with suppress(kafka_errors.KafkaError, DeadlineExceeded):
                self._bounded(self._producer.abort_transaction, self._limits.request_s)
        self._discard()

    def _ready(self) -> KafkaProducer:
        if self._fenced:
            raise ProducerFenced("this producer was fenced before")
        if self._producer is None or not self._initialised:
            raise TransactionAborted("the producer lost its transaction: abort first")
        return self._producer

    def _left(self) -> float:
        return max(0.1, self._commit_by - time.monotonic())

    def _bounded(self, call: Callable[[], T], timeout_s: float) -> T:
        assert self._guard is not None
        return self._guard.run(call, timeout_s)

    def _discard(self) -> None:
        producer, self._producer, self._initialised = self._producer, None, False
        if self._guard is not None:
            self._guard.close()
        self._open = False
        if producer is not None:
            with suppress(kafka_errors.KafkaError):
                producer.close(timeout=0)

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
        """Whatever fails in an open transaction is to be aborted; where there is no answer, by a fresh producer."""
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


def _membership(offsets: Mapping[TopicPartition, int], consumer: Consumer) -> object:
    """The consumer's group metadata; a commit by one that owns none of the partitions would go unfenced."""
    if not isinstance(consumer, KafkaPythonConsumer):
        raise TypeError("kafka-python commits offsets only of its own consumer")
    metadata = consumer.group_metadata()
    if metadata.generation_id < 0 or not consumer.assignment() >= set(offsets):
        raise TransactionAborted("the partitions are no longer assigned to this consumer")
    return metadata
