"""The broker behind the fake clients: partitions with gaps and markers, transactions, groups, rebalances on demand."""

from __future__ import annotations

import itertools
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from centinela.clock import Clock, SystemClock
from centinela.errors import DependencyUnavailable, InvalidRecord
from centinela.kafka.partitioner import partition_of
from centinela.kafka.port import Outgoing, Record, TopicIdentity, TopicPartition
from centinela.kafka.timeouts import MAX_REQUEST_BYTES
from centinela.times import to_ms


class Member(Protocol):
    """A consumer of a group, as the broker sees it."""

    group: str | None
    topics: frozenset[str]

    def reassign(self, owned: frozenset[TopicPartition], *, lost: bool) -> None:
        """From now on the member has the partitions *owned*; with *lost* it had no time to commit."""


class Transactional(Protocol):
    """A producer with a transactional id, as the broker sees it."""

    transactional_id: str

    def fence(self) -> None:
        """Another producer took over the id."""


@dataclass
class Entry:
    """An offset of a partition's log. ``record`` None is a transaction marker."""

    record: Record | None
    state: Literal["open", "committed", "aborted"] = "committed"


@dataclass
class Group:
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    owner: dict[TopicPartition, Member] = field(default_factory=dict)


class FakeBroker:
    """Topics are created when first written to or named, with *partitions* partitions each; others by ``create``.

    ``unavailable = True`` makes every call raise ``DependencyUnavailable``. *clock* stamps the records.
    """

    def __init__(self, partitions: int = 1, *, auto_create: bool = True, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.unavailable = False
        self._default = partitions
        self._auto_create = auto_create
        self._logs: dict[TopicPartition, list[Entry]] = {}
        self._first: dict[TopicPartition, int] = {}
        self._counts: dict[str, int] = {}
        self._ids: dict[str, str] = {}
        self._groups: dict[str, Group] = defaultdict(Group)
        self._owners: dict[str, Transactional] = {}
        self._round_robin = itertools.count()

    def create(self, topic: str, partitions: int) -> None:
        """Create *topic*, empty."""
        self._counts[topic] = partitions
        self._ids[topic] = str(uuid.uuid4())
        for number in range(partitions):
            self._logs[TopicPartition(topic, number)] = []
            self._first.pop(TopicPartition(topic, number), None)

    def grow(self, topic: str, partitions: int) -> None:
        """Give *topic* more partitions; records stay in theirs."""
        for number in range(self._counts[topic], partitions):
            self._logs[TopicPartition(topic, number)] = []
        self._counts[topic] = partitions

    def remake(self, topic: str) -> None:
        """Delete *topic*, and what groups have committed of it, and create it again."""
        for group in self._groups.values():
            group.committed = {p: offset for p, offset in group.committed.items() if p.topic != topic}
        self.create(topic, self._counts[topic])

    def forget(self, group: str) -> None:
        """Delete what *group* has committed, as a broker does some time after its last member left."""
        self._groups[group].committed = {}

    def expire(self, partition: TopicPartition, first: int) -> None:
        """Retention deletes what comes before the offset *first*."""
        self._first[partition] = first

    def truncate(self, partition: TopicPartition, end: int) -> None:
        """Lose what comes from the offset *end* on, as by an unclean election."""
        del self._logs[partition][end:]

    def first(self, partition: TopicPartition) -> int:
        """The first offset kept."""
        return self._first.get(partition, 0)

    def identify(self, topic: str) -> TopicIdentity:
        """As ``TopicAdmin.identify``."""
        self.check()
        if not self.partitions(topic):
            raise DependencyUnavailable(f"topic {topic} does not exist", dependency="kafka")
        return TopicIdentity(self._ids[topic], self._counts[topic])

    def append(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        *,
        partition: int | None = None,
        headers: tuple[tuple[str, bytes], ...] = (),
        timestamp_ms: int | None = None,
    ) -> Record:
        """Write a record as another client would; *timestamp_ms* where the client stamps it itself."""
        return self._write(Outgoing(topic, value, key, headers, partition), "committed", timestamp_ms)

    def records(self, topic: str) -> list[Record]:
        """What a read_committed reader of the whole *topic* gets, by partition, then offset."""
        return [
            entry.record
            for partition in sorted(self.partitions(topic))
            for entry in self._logs[partition][self.first(partition) : self.stable_end(partition)]
            if entry.record is not None and entry.state == "committed"
        ]

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """The group's committed offsets."""
        return dict(self._groups[group].committed)

    def rebalance(self, group: str) -> None:
        """Assign the partitions of *group*'s topics to its members again, as evenly as stickiness allows."""
        state = self._groups[group]
        partitions = sorted({p for member in state.members for topic in member.topics for p in self.partitions(topic)})
        if not state.members:
            state.owner = {}
            return
        share = -(-len(partitions) // len(state.members))
        keep: dict[TopicPartition, Member] = {}
        load: dict[int, int] = defaultdict(int)
        for partition in partitions:
            owner = state.owner.get(partition)
            if owner in state.members and load[id(owner)] < share:
                keep[partition] = owner
                load[id(owner)] += 1
        for partition in partitions:
            if partition not in keep:
                member = min(state.members, key=lambda m: load[id(m)])
                keep[partition] = member
                load[id(member)] += 1
        for member in state.members:
            member.reassign(frozenset(p for p, owner in keep.items() if owner is member), lost=False)
        state.owner = keep

    def rebalance_all(self) -> None:
        """Rebalance every group, as happens when members notice new partitions."""
        for name in list(self._groups):
            self.rebalance(name)

    def evict(self, consumer: Member) -> None:
        """*consumer* is removed from its group, as after missed heartbeats; it joins again with its next poll."""
        assert consumer.group is not None
        state = self._groups[consumer.group]
        state.members.remove(consumer)
        state.owner = {p: m for p, m in state.owner.items() if m is not consumer}
        consumer.reassign(frozenset(), lost=True)
        self.rebalance(consumer.group)

    def check(self) -> None:
        """Raises ``DependencyUnavailable`` while ``unavailable``."""
        if self.unavailable:
            raise DependencyUnavailable("Kafka does not answer", dependency="kafka")

    def partitions(self, topic: str) -> frozenset[TopicPartition]:
        """The partitions of *topic*; none where it does not exist and topics are not created automatically."""
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
        """Committed records from *offset* on, and the position after them (past markers and aborted records). What is
        out of range is read from the start."""
        log, end = self._logs[partition], self.stable_end(partition)
        offset = offset if self.first(partition) <= offset <= len(log) else self.first(partition)
        records: list[Record] = []
        while offset < end and len(records) < limit:
            entry = log[offset]
            if entry.record is not None and entry.state == "committed":
                records.append(entry.record)
            offset += 1
        while offset < end and (log[offset].record is None or log[offset].state == "aborted"):
            offset += 1
        return records, offset

    def group(self, name: str) -> Group:
        """The state of a group."""
        return self._groups[name]

    def take_over(self, producer: Transactional) -> None:
        """*producer* becomes the owner of its transactional id; an earlier one is fenced, its transaction aborted."""
        earlier = self._owners.get(producer.transactional_id)
        if earlier is not None and earlier is not producer:
            earlier.fence()
        self._owners[producer.transactional_id] = producer

    def write_open(self, record: Outgoing) -> tuple[TopicPartition, Entry]:
        """Write *record* in an open transaction."""
        written = self._write(record, "open")
        partition = TopicPartition(written.topic, written.partition)
        return partition, self._logs[partition][-1]

    def end_transaction(
        self, entries: Sequence[tuple[TopicPartition, Entry]], state: Literal["committed", "aborted"]
    ) -> None:
        """Commit or abort the entries, and write a marker to each of their partitions."""
        for _, entry in entries:
            entry.state = state
        for partition in sorted({partition for partition, _ in entries}):
            self._logs[partition].append(Entry(None))

    def _write(self, out: Outgoing, state: Literal["open", "committed"], timestamp_ms: int | None = None) -> Record:
        if len(out.value or b"") + len(out.key or b"") > MAX_REQUEST_BYTES:
            raise InvalidRecord("too_large", f"{len(out.value or b'')} bytes; at most {MAX_REQUEST_BYTES}")
        if not self.partitions(out.topic):
            raise DependencyUnavailable(f"topic {out.topic} does not exist", dependency="kafka")
        count = self._counts[out.topic]
        number = out.partition
        if number is None:
            number = partition_of(out.key, count) if out.key is not None else next(self._round_robin) % count
        log = self._logs[TopicPartition(out.topic, number)]
        stamp = to_ms(self._clock.now()) if timestamp_ms is None else timestamp_ms
        record = Record(out.topic, number, len(log), out.key, out.value, out.headers, stamp)
        log.append(Entry(record, state))
        return record
