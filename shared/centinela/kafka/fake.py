"""A Kafka in memory for tests: partitions with gaps and markers, transactions, groups, rebalances on demand.

One thread. It passes the contract suite that the real adapters pass. Trouble is made on purpose:
``broker.away = True``, ``broker.rebalance(group)``, ``broker.evict(consumer)``, ``producer.fail_next_commit(error)``.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from centinela.errors import DependencyUnavailable, InvalidRecord, ProducerFenced, TransactionAborted
from centinela.kafka.limits import MAX_REQUEST_BYTES
from centinela.kafka.partitioner import partition_of
from centinela.kafka.port import Consumer, Delivery, Outgoing, Rebalance, Record, TopicPartition


@dataclass
class _Entry:
    """A place in a partition's log. ``record`` None is a transaction marker."""

    record: Record | None
    state: Literal["open", "committed", "aborted"] = "committed"


@dataclass
class _Group:
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    members: list[FakeConsumer] = field(default_factory=list)
    owner: dict[TopicPartition, FakeConsumer] = field(default_factory=dict)


class FakeBroker:
    """Topics appear when first written to or named, with *partitions* partitions each; others by ``create``."""

    def __init__(self, partitions: int = 1, *, auto_create: bool = True) -> None:
        self.away = False
        self._default, self._auto_create = partitions, auto_create
        self._logs: dict[TopicPartition, list[_Entry]] = {}
        self._counts: dict[str, int] = {}
        self._groups: dict[str, _Group] = defaultdict(_Group)
        self._owners: dict[str, FakeTransactionalProducer] = {}
        self._round_robin = itertools.count()

    def create(self, topic: str, partitions: int) -> None:
        """Make *topic*."""
        self._counts[topic] = partitions
        for number in range(partitions):
            self._logs[TopicPartition(topic, number)] = []

    def append(self, topic: str, value: bytes | None, key: bytes | None = None, *, partition: int | None = None,
               headers: tuple[tuple[str, bytes], ...] = ()) -> Record:
        """Write a record as somebody else would."""
        return self._write(Outgoing(topic, value, key, headers, partition), "committed")

    def records(self, topic: str) -> list[Record]:
        """What a read_committed reader of the whole *topic* gets, by partition, then offset."""
        return [
            entry.record for partition in sorted(self.partitions(topic)) for entry in self._logs[partition][:self.stable_end(partition)]
            if entry.record is not None and entry.state == "committed"
        ]

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """The group's committed offsets."""
        return dict(self._groups[group].committed)

    def rebalance(self, group: str) -> None:
        """Share the partitions of *group*'s topics over its members anew, as evenly as stickiness allows."""
        state = self._groups[group]
        wanted = sorted({p for member in state.members for topic in member.topics for p in self.partitions(topic)})
        if not state.members:
            state.owner = {}
            return
        share = -(-len(wanted) // len(state.members))
        keep: dict[TopicPartition, FakeConsumer] = {}
        load: dict[int, int] = defaultdict(int)
        for partition in wanted:
            owner = state.owner.get(partition)
            if owner in state.members and load[id(owner)] < share:
                keep[partition] = owner
                load[id(owner)] += 1
        for partition in wanted:
            if partition not in keep:
                member = min(state.members, key=lambda m: load[id(m)])
                keep[partition] = member
                load[id(member)] += 1
        for member in state.members:
            member.reassign(frozenset(p for p, owner in keep.items() if owner is member), lost=False)
        state.owner = keep

    def evict(self, consumer: FakeConsumer) -> None:
        """*consumer* is thrown out of its group, as after missed heartbeats; it joins again with its next poll."""
        assert consumer.group is not None
        state = self._groups[consumer.group]
        state.members.remove(consumer)
        state.owner = {p: m for p, m in state.owner.items() if m is not consumer}
        consumer.reassign(frozenset(), lost=True)
        self.rebalance(consumer.group)

    def check(self) -> None:
        """Raise ``DependencyUnavailable`` while away."""
        if self.away:
            raise DependencyUnavailable("Kafka does not answer", dependency="kafka")

    def partitions(self, topic: str) -> frozenset[TopicPartition]:
        """The partitions of *topic*; none where it does not exist and topics do not appear by themselves."""
        if topic not in self._counts:
            if not self._auto_create:
                return frozenset()
            self.create(topic, self._default)
        return frozenset(TopicPartition(topic, n) for n in range(self._counts[topic]))

    def stable_end(self, partition: TopicPartition) -> int:
        """The last stable offset."""
        log = self._logs[partition]
        return next((offset for offset, entry in enumerate(log) if entry.state == "open"), len(log))

    def fetch(self, partition: TopicPartition, offset: int, limit: int) -> tuple[list[Record], int]:
        """Committed records from *offset* on, and the position after them (past markers and aborted records)."""
        log, end = self._logs[partition], self.stable_end(partition)
        found: list[Record] = []
        while offset < end and len(found) < limit:
            entry = log[offset]
            if entry.record is not None and entry.state == "committed":
                found.append(entry.record)
            offset += 1
        while offset < end and (log[offset].record is None or log[offset].state == "aborted"):
            offset += 1
        return found, offset

    def group(self, name: str) -> _Group:
        """The state of a group."""
        return self._groups[name]

    def take_over(self, producer: FakeTransactionalProducer) -> None:
        """*producer* becomes the owner of its transactional id; an earlier one is fenced, its transaction aborted."""
        earlier = self._owners.get(producer.transactional_id)
        if earlier is not None and earlier is not producer:
            earlier.fence()
        self._owners[producer.transactional_id] = producer

    def write_open(self, record: Outgoing) -> tuple[TopicPartition, _Entry]:
        """Write *record* in an open transaction."""
        written = self._write(record, "open")
        partition = TopicPartition(written.topic, written.partition)
        return partition, self._logs[partition][-1]

    def end_transaction(self, entries: Sequence[tuple[TopicPartition, _Entry]], state: Literal["committed", "aborted"]) -> None:
        """Decide the entries and write a marker to each of their partitions."""
        for _, entry in entries:
            entry.state = state
        for partition in sorted({partition for partition, _ in entries}):
            self._logs[partition].append(_Entry(None))

    def _write(self, out: Outgoing, state: Literal["open", "committed"]) -> Record:
        if len(out.value or b"") + len(out.key or b"") > MAX_REQUEST_BYTES:
            raise InvalidRecord("too_large", f"{len(out.value or b'')} bytes; at most {MAX_REQUEST_BYTES}")
        if not self.partitions(out.topic):
            raise DependencyUnavailable(f"topic {out.topic} does not exist", dependency="kafka")
        count = self._counts[out.topic]
        number = out.partition
        if number is None:
            number = partition_of(out.key, count) if out.key is not None else next(self._round_robin) % count
        log = self._logs[TopicPartition(out.topic, number)]
        record = Record(out.topic, number, len(log), out.key, out.value, out.headers, 1_700_000_000_000 + len(log))
        log.append(_Entry(record, state))
        return record


class FakeConsumer:
    """``Consumer`` on a ``FakeBroker``."""

    supports_pause = True

    def __init__(self, broker: FakeBroker, group: str | None = None, start: Literal["earliest", "latest"] = "earliest") -> None:
        self.group, self.topics = group, frozenset[str]()
        self._broker, self._start = broker, start
        self._assignment: frozenset[TopicPartition] = frozenset()
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._assigned: set[TopicPartition] = set()
        self._revoked: set[TopicPartition] = set()
        self._lost: set[TopicPartition] = set()
        self.closed = False

    def subscribe(self, topics: Collection[str]) -> None:
        self.topics = frozenset(topics)

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        self._assignment, self._positions = frozenset(partitions), {}

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        self._broker.check()
        if self.topics and self not in self._broker.group(self.group or "").members:
            self._broker.group(self.group or "").members.append(self)
            self._broker.rebalance(self.group or "")
        if self._assigned or self._revoked or self._lost:
            return []
        records: list[Record] = []
        for partition in sorted(self._assignment - self._paused):
            if len(records) >= max_records:
                break
            found, self._positions[partition] = self._broker.fetch(partition, self.position(partition), max_records - len(records))
            records += found
        return records

    def take_rebalance(self) -> Rebalance | None:
        if not (self._assigned or self._revoked or self._lost):
            return None
        change = Rebalance(frozenset(self._assigned), frozenset(self._revoked), frozenset(self._lost))
        self._assigned, self._revoked, self._lost = set(), set(), set()
        return change

    def assignment(self) -> frozenset[TopicPartition]:
        return self._assignment

    def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        self._broker.check()
        known = self._broker.group(self.group).committed if self.group is not None else {}
        return {p: known.get(p) for p in partitions}

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        self._broker.check()
        return dict.fromkeys(partitions, 0)

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        self._broker.check()
        return {p: self._broker.stable_end(p) for p in partitions}

    def position(self, partition: TopicPartition) -> int:
        self._broker.check()
        if partition not in self._positions:
            committed = self.committed([partition])[partition] if self.topics else None
            first = 0 if self._start == "earliest" else self._broker.stable_end(partition)
            self._positions[partition] = first if committed is None else committed
        return self._positions[partition]

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition not in self._assignment:
            raise ValueError(f"{partition} is not assigned")
        self._positions[partition] = offset

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._paused.update(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self._paused.difference_update(partitions)

    def partitions_of(self, topic: str) -> frozenset[TopicPartition]:
        self._broker.check()
        return self._broker.partitions(topic)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._broker.check()
        self.commit_in_group(offsets)

    def commit_in_group(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Take *offsets* over; refused where a partition is no longer this member's."""
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
        """The broker's word on what this member reads from now on."""
        gone, new = self._assignment - owned, owned - self._assignment
        (self._lost if lost else self._revoked).update(gone)
        self._assigned = (self._assigned | new) - gone
        self._paused -= gone | new
        for partition in gone | new:
            self._positions.pop(partition, None)
        self._assignment = owned


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
        self._entries: list[tuple[TopicPartition, _Entry]] = []
        self._open = self._fenced = False
        self._errors: list[Exception] = []
        self.commits = self.aborts = 0
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
        self._entries, self._open = [], False

    def _check(self) -> None:
        if self._fenced:
            raise ProducerFenced(f"another producer took over {self.transactional_id}")
        self._broker.check()
