"""How a loop makes a batch's outcome and offsets durable: in one transaction, or records first, then offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from centinela.errors import CentinelaError
from centinela.kafka.port import Consumer, Outgoing, Producer, TopicPartition, TransactionalProducer
from centinela.kafka.timeouts import TIMEOUTS
from centinela.telemetry.metrics import CONSUMER_TRANSACTIONS


class ProducerStuck(CentinelaError):
    """Commits fail again and again although the brokers answer: the process must end, and may be started again."""


class Committer(Protocol):
    """Raises what the port's producers raise."""

    def start(self) -> None:
        """Be ready to commit; may be called again where it failed."""

    def commit(self, records: Sequence[Outgoing], offsets: Mapping[TopicPartition, int]) -> None:
        """Make *records* and *offsets* (next to read) durable."""

    def abort(self) -> None:
        """Discard what a failed commit left behind."""

    def close(self) -> None:
        """Release the producer."""


class TransactionalCommitter:
    """All or nothing, by a Kafka transaction."""

    def __init__(self, consumer: Consumer, producer: TransactionalProducer) -> None:
        self._consumer = consumer
        self._producer = producer

    def start(self) -> None:
        self._producer.init()

    def commit(self, records: Sequence[Outgoing], offsets: Mapping[TopicPartition, int]) -> None:
        self._producer.begin()
        self._producer.send_all(records)
        self._producer.commit(offsets, self._consumer)
        CONSUMER_TRANSACTIONS.labels("committed").inc()

    def abort(self) -> None:
        self._producer.abort()
        CONSUMER_TRANSACTIONS.labels("aborted").inc()

    def close(self) -> None:
        self._producer.close()


class PlainCommitter:
    """At least once: records are acknowledged before the offsets are committed.

    Args:
        producer: Needed where the handler has events or dead letters.
    """

    def __init__(self, consumer: Consumer, producer: Producer | None) -> None:
        self._consumer = consumer
        self._producer = producer

    def start(self) -> None:
        """Nothing to prepare."""

    def commit(self, records: Sequence[Outgoing], offsets: Mapping[TopicPartition, int]) -> None:
        if records:
            if self._producer is None:
                raise RuntimeError("this loop has no producer, but its handler has records to write")
            for record in records:
                self._producer.send(record)
            self._producer.flush(TIMEOUTS.transaction_s)
        if offsets:
            self._consumer.commit(offsets)

    def abort(self) -> None:
        """What was sent stays: the batch is repeated."""

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close()
