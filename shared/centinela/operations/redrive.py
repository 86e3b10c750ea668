"""Reads the dead letters, puts records back where they came from, and closes letters: each exactly once.

A redrive writes the record and the letter's closing in one transaction of the id ``TRANSACTIONAL_ID``, and reads what
is closed only after it fenced every earlier holder of that id. So a crash leaves both or neither, and of two redrives
at a time one ends with ``ProducerFenced``, having written nothing that the other does not see.
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
    Closing,
    Letter,
    Place,
    closing_of,
    closing_record,
    is_closing,
    letter_of,
    redriven_record,
)
from centinela.kafka.connect import consumer
from centinela.kafka.port import Consumer, Outgoing, Record, TopicPartition, TransactionalProducer
from centinela.settings import Settings

TRANSACTIONAL_ID = "centinela-dlq"
BATCH = 500
"""Letters of one transaction."""

_POLL_S = 0.2


@dataclass(frozen=True)
class Filter:
    """Which letters are meant; None admits all. *partition* is the one that the record was in, *since* <= time of death
    < *until*."""

    reason: str | None = None
    partition: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    source: str | None = None
    transaction_id: str | None = None
    places: frozenset[Place] = frozenset()

    @property
    def admits_all(self) -> bool:
        return self == Filter()

    def admits(self, letter: Letter) -> bool:
        """Whether *letter* is meant."""
        partition = letter.origin.partition if letter.origin is not None else letter.place.partition
        in_time = (
            letter.at is not None
            and (self.since is None or letter.at >= self.since)
            and (self.until is None or letter.at < self.until)
        )
        return (
            self.reason in (None, letter.reason)
            and self.partition in (None, partition)
            and self.source in (None, letter.source)
            and self.transaction_id in (None, letter.transaction_id)
            and (not self.places or letter.place in self.places)
            and (in_time or (self.since is None and self.until is None))
        )


@dataclass
class Survey:
    """The letters that a filter admits, and what became of them. ``answered``: origins put back, and by which
    letter."""

    letters: dict[Place, Letter] = field(default_factory=dict)
    closings: dict[Place, Closing] = field(default_factory=dict)
    answered: dict[Place, Place] = field(default_factory=dict)

    def open(self) -> list[Letter]:
        """The letters that nobody has closed, the oldest first within each partition."""
        return sorted(letter for place, letter in self.letters.items() if place not in self.closings)

    def state(self, letter: Letter) -> str:
        """``open``, ``redriven`` or ``dropped``."""
        closing = self.closings.get(letter.place)
        return closing.kind if closing is not None else "open"


class Plan(NamedTuple):
    """Of the open letters: which to redrive, which to close because another letter's redrive answers them, and which
    cannot be."""

    redrive: list[Letter]
    answered: dict[Place, Place]
    obstacles: Counter[str]

    @classmethod
    def of(cls, survey: Survey, limit: int | None = None) -> Plan:
        """A record with several letters (several services refused it) is put back once, for all who read its topic."""
        plan, answered_by = cls([], {}, Counter()), dict(survey.answered)
        for letter in survey.open():
            if letter.obstacle is not None or letter.origin is None:
                plan.obstacles[letter.obstacle or ""] += 1
            elif letter.origin in answered_by:
                plan.answered[letter.place] = answered_by[letter.origin]
            elif limit is None or len(plan.redrive) < limit:
                answered_by[letter.origin] = letter.place
                plan.redrive.append(letter)
        return plan


class LetterBox:
    """The DLQs of *topics*.

    Args:
        reader: Makes a consumer without a group.
        topics: Names of DLQs.
        batch: Letters in one transaction at most.
    """

    def __init__(
        self, reader: Callable[[], Consumer], topics: Sequence[str], clock: Clock, *, batch: int = BATCH
    ) -> None:
        self._reader, self._topics, self._clock, self._batch = reader, list(topics), clock, batch

    def survey(self, wanted: Filter) -> Survey:
        """Read all DLQs to their ends as they are now.

        Raises:
            DependencyUnavailable: The brokers are away, or a topic does not exist.
        """
        survey, closings = Survey(), dict[Place, Closing]()
        for record in self._all():
            if (closing := closing_of(record)) is not None:
                closings[closing.letter] = closing
                if closing.kind == "redriven" and closing.origin is not None:
                    survey.answered[closing.origin] = closing.answered_by
            elif not is_closing(record) and wanted.admits(letter := letter_of(record)):
                survey.letters[letter.place] = letter
        survey.closings = {place: closing for place, closing in closings.items() if place in survey.letters}
        return survey

    def find(self, place: Place, timeout_s: float = 10.0) -> Record | None:
        """The record at *place*; None where none is (any more)."""
        reader = self._reader()
        try:
            partition = TopicPartition(place.topic, place.partition)
            if (
                partition not in reader.partitions_of(place.topic)
                or place.offset >= reader.end_offsets([partition])[partition]
            ):
                return None
            reader.assign([partition])
            reader.seek(partition, place.offset)
            records = reader.poll(timeout_s, 1)
            return records[0] if records and records[0].offset == place.offset else None
        finally:
            reader.close()

    def plan(self, wanted: Filter, limit: int | None = None) -> Plan:
        """What ``redrive`` would do now. Writes nothing and fences nobody."""
        return Plan.of(self.survey(wanted), limit)

    def redrive(
        self, producer: TransactionalProducer, wanted: Filter, *, by: str, why: str = "", limit: int | None = None
    ) -> Plan:
        """Put the records of the open letters that *wanted* admits back; what was done. At most *limit* records.

        Raises:
            ProducerFenced: Another ``redrive`` or ``drop`` took over.
            DependencyUnavailable: The brokers are away; what was committed stands, and another call does the rest.
            TransactionAborted: Likewise.
        """
        producer.init()
        plan = self.plan(wanted, limit)
        chosen = {letter.place: letter for letter in plan.redrive}
        for records in self._batches(chosen.keys() | plan.answered.keys()):
            out: list[Outgoing] = []
            for record in records:
                letter = letter_of(record)
                leader = plan.answered.get(letter.place, letter.place)
                if letter.place in chosen:
                    out.append(redriven_record(record, letter, by=by, at=self._clock.now()))
                out.append(closing_record(letter, "redriven", by=by, why=why, at=self._clock.now(), answered_by=leader))
            self._commit(producer, out)
        return plan

    def drop(self, producer: TransactionalProducer, wanted: Filter, *, by: str, why: str) -> int:
        """Close the open letters that *wanted* admits without putting anything back; how many. Raises as
        ``redrive``."""
        producer.init()
        letters = self.survey(wanted).open()
        for start in range(0, len(letters), self._batch):
            part = letters[start : start + self._batch]
            self._commit(
                producer, [closing_record(letter, "dropped", by=by, why=why, at=self._clock.now()) for letter in part]
            )
        return len(letters)

    def _commit(self, producer: TransactionalProducer, out: Sequence[Outgoing]) -> None:
        producer.begin()
        producer.send_all(out)
        producer.commit({}, self._reader())

    def _batches(self, places: Iterable[Place]) -> Iterator[list[Record]]:
        """The records at *places*, read anew so that only a batch of values is in memory."""
        wanted = set(places)
        batch: list[Record] = []
        if not wanted:
            return
        for record in self._all(sorted({place.topic for place in wanted})):
            if Place.of(record) in wanted:
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


def open_box(settings: Settings, topics: Sequence[str], clock: Clock) -> LetterBox:
    """The DLQs of *topics* on the configured brokers."""
    return LetterBox(lambda: consumer(settings, group=None), topics, clock)
