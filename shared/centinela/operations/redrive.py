"""Reads the dead letters, puts records back where they came from, and resolves dead letters: each exactly once.

A redrive writes the record and the resolution of its dead letter in one transaction of the id ``TRANSACTIONAL_ID``, and
reads what is resolved only after it fenced every earlier holder of that id. So a crash leaves both or neither, and of
two redrives at a time one ends with ``ProducerFenced``, having written nothing that the other does not see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from centinela.clock import Clock
from centinela.consuming.table_reader import TableReader
from centinela.deadletters.entries import (
    DeadLetterEntry,
    RecordPosition,
    Resolution,
    is_resolution,
    read_entry,
    read_resolution,
    redriven_record,
    resolution_record,
)
from centinela.kafka.connect import consumer
from centinela.kafka.port import Consumer, Outgoing, Record, TopicPartition, TransactionalProducer
from centinela.settings import Settings

TRANSACTIONAL_ID = "centinela-dlq"
BATCH = 500
"""Dead letters of one transaction."""

_POLL_S = 0.2


@dataclass(frozen=True)
class Filter:
    """Selects dead letters; None admits all. *partition* is the one that the record was in, *since* <= time of failure
    < *until*."""

    reason: str | None = None
    partition: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    source: str | None = None
    transaction_id: str | None = None
    positions: frozenset[RecordPosition] = frozenset()

    @property
    def admits_all(self) -> bool:
        return self == Filter()

    def admits(self, entry: DeadLetterEntry) -> bool:
        """Whether *entry* is selected."""
        partition = entry.origin.partition if entry.origin is not None else entry.position.partition
        in_time = (
            entry.at is not None
            and (self.since is None or entry.at >= self.since)
            and (self.until is None or entry.at < self.until)
        )
        return (
            self.reason in (None, entry.reason)
            and self.partition in (None, partition)
            and self.source in (None, entry.source)
            and self.transaction_id in (None, entry.transaction_id)
            and (not self.positions or entry.position in self.positions)
            and (in_time or (self.since is None and self.until is None))
        )


@dataclass
class Survey:
    """The dead letters that a filter admits, and what became of them. ``put_back``: origins that were put back, and by
    which dead letter's redrive."""

    entries: dict[RecordPosition, DeadLetterEntry] = field(default_factory=dict)
    resolutions: dict[RecordPosition, Resolution] = field(default_factory=dict)
    put_back: dict[RecordPosition, RecordPosition] = field(default_factory=dict)

    def open(self) -> list[DeadLetterEntry]:
        """The dead letters without a resolution, the oldest first within each partition."""
        return sorted(entry for position, entry in self.entries.items() if position not in self.resolutions)

    def state(self, entry: DeadLetterEntry) -> str:
        """``open``, ``redriven`` or ``dropped``."""
        resolution = self.resolutions.get(entry.position)
        return resolution.kind if resolution is not None else "open"


class RedrivePlan(NamedTuple):
    """Of the open dead letters: which to redrive, which another one's redrive resolves, and which cannot be
    redriven."""

    redrive: list[DeadLetterEntry]
    redriven_with: dict[RecordPosition, RecordPosition]
    obstacles: Counter[str]

    @classmethod
    def of(cls, survey: Survey, limit: int | None = None) -> RedrivePlan:
        """A record with several dead letters (several services refused it) is put back once, for all who read its
        topic."""
        plan = cls([], {}, Counter())
        put_back = dict(survey.put_back)
        for entry in survey.open():
            if entry.obstacle is not None or entry.origin is None:
                plan.obstacles[entry.obstacle or ""] += 1
            elif entry.origin in put_back:
                plan.redriven_with[entry.position] = put_back[entry.origin]
            elif limit is None or len(plan.redrive) < limit:
                put_back[entry.origin] = entry.position
                plan.redrive.append(entry)
        return plan


class DeadLetterStore:
    """The DLQs of *topics*.

    Args:
        reader: Makes a consumer without a group.
        topics: Names of DLQs.
        batch: Dead letters in one transaction at most.
    """

    def __init__(
        self, reader: Callable[[], Consumer], topics: Sequence[str], clock: Clock, *, batch: int = BATCH
    ) -> None:
        self._reader = reader
        self._topics = list(topics)
        self._clock = clock
        self._batch = batch

    def survey(self, selection: Filter) -> Survey:
        """Read all DLQs to their ends as they are now.

        Raises:
            DependencyUnavailable: The brokers do not answer, or a topic does not exist.
        """
        survey = Survey()
        resolutions = dict[RecordPosition, Resolution]()
        for record in self._all():
            if (resolution := read_resolution(record)) is not None:
                resolutions[resolution.dead_letter] = resolution
                if resolution.kind == "redriven" and resolution.origin is not None:
                    survey.put_back[resolution.origin] = resolution.redriven_with
            elif not is_resolution(record) and selection.admits(entry := read_entry(record)):
                survey.entries[entry.position] = entry
        survey.resolutions = {p: resolution for p, resolution in resolutions.items() if p in survey.entries}
        return survey

    def find(self, position: RecordPosition, timeout_s: float = 10.0) -> Record | None:
        """The record at *position*; None where there is none (any more)."""
        reader = self._reader()
        try:
            partition = TopicPartition(position.topic, position.partition)
            if (
                partition not in reader.partitions_of(position.topic)
                or position.offset >= reader.end_offsets([partition])[partition]
            ):
                return None
            reader.assign([partition])
            reader.seek(partition, position.offset)
            records = reader.poll(timeout_s, 1)
            return records[0] if records and records[0].offset == position.offset else None
        finally:
            reader.close()

    def plan(self, selection: Filter, limit: int | None = None) -> RedrivePlan:
        """What ``redrive`` would do now. Writes nothing and fences nobody."""
        return RedrivePlan.of(self.survey(selection), limit)

    def redrive(
        self, producer: TransactionalProducer, selection: Filter, *, by: str, why: str = "", limit: int | None = None
    ) -> RedrivePlan:
        """Put the records of the open dead letters that *selection* admits back, at most *limit*; what was done.

        Raises:
            ProducerFenced: Another ``redrive`` or ``drop`` took over.
            DependencyUnavailable: The brokers do not answer; what was committed is done, and another call does the
                rest.
            TransactionAborted: As for ``DependencyUnavailable``.
        """
        producer.init()
        plan = self.plan(selection, limit)
        chosen = {entry.position for entry in plan.redrive}
        for records in self._batches(chosen | plan.redriven_with.keys()):
            out: list[Outgoing] = []
            for record in records:
                entry = read_entry(record)
                if entry.position in chosen:
                    out.append(redriven_record(record, entry, by=by, at=self._clock.now()))
                out.append(
                    resolution_record(
                        entry,
                        "redriven",
                        by=by,
                        why=why,
                        at=self._clock.now(),
                        redriven_with=plan.redriven_with.get(entry.position, entry.position),
                    )
                )
            self._commit(producer, out)
        return plan

    def drop(self, producer: TransactionalProducer, selection: Filter, *, by: str, why: str) -> int:
        """Resolve the open dead letters that *selection* admits without putting anything back; how many. Raises as
        ``redrive``."""
        producer.init()
        entries = self.survey(selection).open()
        for start in range(0, len(entries), self._batch):
            part = entries[start : start + self._batch]
            self._commit(
                producer, [resolution_record(entry, "dropped", by=by, why=why, at=self._clock.now()) for entry in part]
            )
        return len(entries)

    def _commit(self, producer: TransactionalProducer, out: Sequence[Outgoing]) -> None:
        producer.begin()
        producer.send_all(out)
        producer.commit({}, self._reader())

    def _batches(self, positions: Iterable[RecordPosition]) -> Iterator[list[Record]]:
        """The records at *positions*, read again so that only a batch of values is in memory."""
        remaining = set(positions)
        batch: list[Record] = []
        if not remaining:
            return
        for record in self._all(sorted({position.topic for position in remaining})):
            if RecordPosition.of(record) in remaining:
                batch.append(record)
            if len(batch) == self._batch:
                yield batch
                batch = []
        if batch:
            yield batch

    def _all(self, topics: Sequence[str] | None = None) -> Iterator[Record]:
        table = TableReader(self._reader(), topics or self._topics)
        try:
            records = table.poll(_POLL_S)
            while True:
                yield from records
                if table.at_end():
                    return
                records = table.poll(_POLL_S)
        finally:
            table.close()


def open_store(settings: Settings, topics: Sequence[str], clock: Clock) -> DeadLetterStore:
    """The DLQs of *topics* on the configured brokers."""
    return DeadLetterStore(lambda: consumer(settings, group=None), topics, clock)
