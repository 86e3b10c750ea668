"""A Kafka in memory for tests, for one thread. It passes the contract suite that the real adapters pass.

Failures are made on purpose: ``broker.unavailable = True``, ``broker.rebalance(group)``, ``broker.evict(consumer)``,
``producer.fail_next_commit(error)``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from centinela.errors import DependencyUnavailable, ProducerFenced, TransactionAborted
from centinela.kafka.port import Consumer, Delivery, Outgoing, Rebalance, Record, TopicPartition
from centinela.testing.kafka_broker import Entry, FakeBroker

__all__ = ["FakeBroker", "FakeConsumer", "FakeGroupAdmin", "FakeProducer", "FakeTransactionalProducer"]


class FakeConsumer:
    """``Consumer`` on a ``FakeBroker``."""

    def __init__(
        self, broker: FakeBroker, group: str | None = None, start: Literal["earliest", "latest"] = "earliest"
    ) -> None:
        self.group = group
        self.topics: frozenset[str] = frozenset()
        self._broker = broker
        self._start = start
        self._assignment: frozenset[TopicPartition] = frozenset()
        self._positions: dict[TopicPartition, int] = {}
        self._held: set[TopicPartition] = set()
        self._turn = -1
        self._assigned: set[TopicPartition] = set()
        self._revoked: set[TopicPartition] = set()
        self._lost: set[TopicPartition] = set()
        self.closed = False

    def subscribe(self, topics: Collection[str]) -> None:
        self.topics = frozenset(topics)

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        self._assignment = frozenset(partitions)
        self._positions = {}
        self._held = set()

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        self._broker.check()
        if self.topics and self not in self._broker.group(self.group or "").members:
            self._broker.group(self.group or "").members.append(self)
            self._broker.rebalance(self.group or "")
        if self._assigned or self._revoked or self._lost:
            return []
        records: list[Record] = []
        for partition in self._in_turn():
            if len(records) >= max_records:
                break
            position = self.position(partition)
            fetched, self._positions[partition] = self._broker.fetch(partition, position, max_records - len(records))
            records += fetched
        return records

    def _in_turn(self) -> list[TopicPartition]:
        """What is read, beginning with another partition at each poll."""
        partitions = sorted(self._assignment - self._held)
        self._turn += 1
        first = self._turn % max(1, len(partitions))
        return partitions[first:] + partitions[:first]

    def take_rebalance(self) -> Rebalance | None:
        if not (self._assigned or self._revoked or self._lost):
            return None
        change = Rebalance(frozenset(self._assigned), frozenset(self._revoked), frozenset(self._lost))
        self._assigned = set()
        self._revoked = set()
        self._lost = set()
        return change

    def assignment(self) -> frozenset[TopicPartition]:
        return self._assignment

    def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        self._broker.check()
        offsets = self._broker.group(self.group).committed if self.group is not None else {}
        return {p: offsets.get(p) for p in partitions}

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        self._broker.check()
        return {p: self._broker.first(p) for p in partitions}

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        self._broker.check()
        return {p: self._broker.stable_end(p) for p in partitions}

    def position(self, partition: TopicPartition) -> int:
        self._broker.check()
        if partition not in self._positions:
            committed = self.committed([partition])[partition] if self.topics else None
            first = self._broker.first(partition) if self._start == "earliest" else self._broker.stable_end(partition)
            self._positions[partition] = first if committed is None else committed
        return self._positions[partition]

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition not in self._assignment:
            raise ValueError(f"{partition} is not assigned")
        self._positions[partition] = offset

    def hold(self, offsets: Mapping[TopicPartition, int | None]) -> None:
        for partition, offset in offsets.items():
            if offset is not None:
                self.seek(partition, offset)
        self._held.update(offsets)

    def release(self, partitions: Collection[TopicPartition]) -> None:
        self._held.difference_update(partitions)

    def partitions_of(self, topic: str) -> frozenset[TopicPartition]:
        self._broker.check()
        return self._broker.partitions(topic)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._broker.check()
        self.commit_in_group(offsets)

    def commit_in_group(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit *offsets*; refused where a partition is no longer assigned to this member."""
        if self.group is None:
            raise RuntimeError("a consumer without a group has nothing to commit to")
        if not self._assignment >= set(offsets):
            raise TransactionAborted("the consumer group moved on")
        self._broker.group(self.group).committed.update(offsets)

    def close(self) -> None:
        self.closed = True
        if self.group is not None and self in self._broker.group(self.group).members:
            self._broker.group(self.group).members.remove(self)
            self._assignment = frozenset()
            self._broker.rebalance(self.group)

    def reassign(self, owned: frozenset[TopicPartition], *, lost: bool) -> None:
        """The broker assigns *owned* to this member from now on."""
        gone = self._assignment - owned
        new = owned - self._assignment
        (self._lost if lost else self._revoked).update(gone)
        self._assigned = (self._assigned | new) - gone
        self._held -= gone | new
        for partition in gone | new:
            self._positions.pop(partition, None)
        self._assignment = owned


class FakeGroupAdmin:
    """``GroupAdmin`` on a ``FakeBroker``."""

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker

    def members(self, group: str) -> int:
        self._broker.check()
        return len(self._broker.group(group).members)

    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        if self.members(group):
            raise DependencyUnavailable(f"group {group} has members", dependency="kafka")
        self._broker.group(group).committed.update(offsets)


class _Done:
    def wait(self, timeout_s: float) -> None:
        """Every send of the fake is acknowledged at once."""


class FakeProducer:
    """``Producer`` on a ``FakeBroker``."""

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self.closed = False

    def send(self, record: Outgoing) -> Delivery:
        self._broker.check()
        self._broker.append(record.topic, record.value, record.key, partition=record.partition, headers=record.headers)
        return _Done()

    def flush(self, timeout_s: float) -> None:
        self._broker.check()

    def close(self) -> None:
        self.closed = True


class FakeTransactionalProducer:
    """``TransactionalProducer`` on a ``FakeBroker``."""

    def __init__(self, broker: FakeBroker, transactional_id: str = "test") -> None:
        self.transactional_id = transactional_id
        self._broker = broker
        self._entries: list[tuple[TopicPartition, Entry]] = []
        self._open = False
        self._fenced = False
        self._errors: list[Exception] = []
        self.commits = 0
        self.aborts = 0
        self.closed = False

    def fail_next_commit(self, error: Exception) -> None:
        """The next commit raises *error* and commits nothing."""
        self._errors.append(error)

    def fence(self) -> None:
        """Another producer took over."""
        self._end("aborted")
        self._fenced = True

    def init(self) -> None:
        self._check()
        self._broker.take_over(self)

    def begin(self) -> None:
        self._check()
        if self._open:
            raise RuntimeError("a transaction is open already")
        self._open = True

    def send_all(self, records: Sequence[Outgoing]) -> None:
        self._check()
        if not self._open:
            raise RuntimeError("no transaction is open")
        self._entries += [self._broker.write_open(record) for record in records]

    def commit(self, offsets: Mapping[TopicPartition, int], consumer: Consumer) -> None:
        self._check()
        if self._errors:
            raise self._errors.pop(0)
        if offsets:
            assert isinstance(consumer, FakeConsumer)
            consumer.commit_in_group(offsets)
        self._end("committed")
        self.commits += 1

    def abort(self) -> None:
        self._check()
        if self._open:
            self._end("aborted")
            self.aborts += 1

    def close(self) -> None:
        self._end("aborted")
        self.closed = True

    def _end(self, state: Literal["committed", "aborted"]) -> None:
        self._broker.end_transaction(self._entries, state)
        self._entries = []
        self._open = False

    def _check(self) -> None:
        if self._fenced:
            raise ProducerFenced(f"another producer took over {self.transactional_id}")
        self._broker.check()
