"""Reconciles the log: every transaction has exactly one verdict, or its record exactly one dead letter.

A redriven record counts by itself, at its new position: it has its verdict or a dead letter of its own; the dead letter
that it was made of remains the outcome of its first position.

``reconcile`` is pure and works on arrays of 64-bit hashes and positions; ``LogAudit`` feeds it from Kafka with
read_committed, through kafka-python: a client that the predictor's stream does not use.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from centinela import topics
from centinela.deadletters.entries import transaction_id
from centinela.errors import DependencyUnavailable
from centinela.kafka.port import Consumer, Record, TopicPartition
from centinela.operations.redrive_ledger import OFFSET_BITS, RedriveLedger, Redrives, pack

__all__ = [
    "LogAudit",
    "Position",
    "Reconciliation",
    "id_hash",
    "letter_origin",
    "pack",
    "reconcile",
    "transaction_id",
    "unpack",
]
U64 = npt.NDArray[np.uint64]
_OFFSET_MASK = (1 << OFFSET_BITS) - 1
UNDECODABLE = 0
"""The hash of a record without a readable transaction id."""


class Position(NamedTuple):
    """The position of a record in its topic."""

    partition: int
    offset: int


def unpack(packed: int) -> Position:
    """The inverse of ``pack``."""
    return Position(packed >> OFFSET_BITS, packed & _OFFSET_MASK)


@dataclass(frozen=True)
class Reconciliation:
    """What the log says. Positions are packed; *missing*, *repeated* and *unexpected* must be empty.

    Attributes:
        records: Records in ``transactions``.
        transactions: Distinct transaction ids among the records that were not dead-lettered.
        duplicates: Further records with an id already counted: they get no verdict of their own.
        undecodable: Records without a readable transaction id.
        verdicts: Records in ``predictions``.
        dead_letters: Dead letters in ``transactions-dlq``, without their resolutions.
        rejected_rows: Of these, rows of files that never were in ``transactions``: the dead letter is their outcome.
        missing: Positions in ``transactions``: no verdict and no dead letter.
        repeated: Positions in ``predictions``: a further verdict on an id that has one.
        unexpected: Positions in ``predictions``: a verdict on what is not in the log, or was dead-lettered.
        repeated_letters: Positions in ``transactions`` with more than one dead letter.
        stray_letters: Dead letters of records that the log does not have (any more), or without an origin.
        rejected_rows: Of these, rows of files that never were in ``transactions``: the dead letter is the outcome.
            error.
        redrives: What operators did with the dead letters; its positions must be empty too.
    """

    records: int
    transactions: int
    duplicates: int
    undecodable: int
    verdicts: int
    dead_letters: int
    missing: U64
    repeated: U64
    unexpected: U64
    repeated_letters: U64
    stray_letters: int
    log_is_whole: bool = True
    rejected_rows: int = 0
    redrives: Redrives = field(default_factory=Redrives)

    @property
    def open_letters(self) -> int:
        """Dead letters that nobody has redriven or dropped."""
        return self.dead_letters - self.redrives.redriven - self.redrives.dropped

    @property
    def reconciled(self) -> bool:
        """Exactly one outcome for each transaction, and exactly one record for each redriven dead letter."""
        strays = self.log_is_whole and (len(self.unexpected) > 0 or self.stray_letters > 0)
        redrives = len(self.redrives.twice) or len(self.redrives.lost) or len(self.redrives.unresolved)
        return not (len(self.missing) or len(self.repeated) or len(self.repeated_letters) or redrives or strays)


def reconcile(
    log_ids: U64,
    log_positions: U64,
    verdict_ids: U64,
    verdict_positions: U64,
    letter_origins: U64,
    *,
    letters_without_origin: int = 0,
    rejected_rows: int = 0,
    log_is_whole: bool = True,
    redrives: Redrives | None = None,
) -> Reconciliation:
    """Match records with their outcomes.

    Args:
        log_ids: Hash of each record's transaction id in ``transactions``, shape (n,); ``UNDECODABLE`` where it has
            none.
        log_positions: Packed position of each, aligned.
        verdict_ids: Hash of each verdict's transaction id, shape (m,).
        verdict_positions: Packed position of each, aligned.
        letter_origins: Packed origin of each dead letter of ``transactions``, shape (k,).
        letters_without_origin: Dead letters that do not say where they came from.
        rejected_rows: Dead letters of rows of files.
        redrives: What operators did with the letters.
    """
    lettered = np.isin(log_positions, letter_origins)
    readable = log_ids != UNDECODABLE
    live = readable & ~lettered
    ids, first = np.unique(log_ids[live], return_index=True)
    answered = np.isin(ids, verdict_ids)
    missing = np.concatenate([log_positions[~readable & ~lettered], log_positions[live][first[~answered]]])

    order = np.argsort(verdict_ids, kind="stable")
    ordered = verdict_ids[order]
    again = np.zeros(len(ordered), bool)
    again[1:] = ordered[1:] == ordered[:-1]
    origins, letters = np.unique(letter_origins, return_counts=True)
    in_log = np.isin(origins, log_positions)
    return Reconciliation(
        records=len(log_ids),
        transactions=len(ids),
        duplicates=int(live.sum()) - len(ids),
        undecodable=int((~readable).sum()),
        verdicts=len(verdict_ids),
        dead_letters=len(letter_origins) + letters_without_origin + rejected_rows,
        missing=np.sort(missing),
        repeated=np.sort(verdict_positions[order][again]),
        unexpected=np.sort(verdict_positions[~np.isin(verdict_ids, ids)]),
        repeated_letters=origins[in_log & (letters > 1)],
        stray_letters=int(letters[~in_log].sum()) + letters_without_origin,
        log_is_whole=log_is_whole,
        rejected_rows=rejected_rows,
        redrives=redrives or Redrives(),
    )


def id_hash(value: bytes | None) -> int:
    """64-bit hash of the transaction id in a record's value, ``UNDECODABLE`` where it has none."""
    id_ = transaction_id(value)
    return UNDECODABLE if id_ is None else xxhash.xxh3_64_intdigest(id_.encode()) or 1


def letter_origin(record: Record, topic: str) -> int | None:
    """The packed origin of a dead letter of *topic*; None where its headers do not say."""
    headers = {name: value for name, value in record.headers if value is not None}
    try:
        if headers["dlq.topic"].decode() != topic:
            return None
        return pack(int(headers["dlq.partition"]), int(headers["dlq.offset"]))
    except (KeyError, ValueError):
        return None


def is_rejected_row(record: Record) -> bool:
    """Whether a dead letter is the row of a file (``centinela replay``), which never was in the log."""
    headers = dict(record.headers)
    return "dlq.row" in headers and "dlq.topic" not in headers


@dataclass
class _Column:
    """Grows by chunks; 8 bytes a value."""

    chunks: list[U64] = field(default_factory=list)

    def extend(self, numbers: Sequence[int]) -> None:
        self.chunks.append(np.array(numbers, np.uint64))

    def array(self) -> U64:
        return np.concatenate(self.chunks) if self.chunks else np.zeros(0, np.uint64)


class LogAudit:
    """Follows ``transactions``, ``predictions`` and ``transactions-dlq`` and reconciles them.

    Args:
        consumer: Without a group, used by this audit only.
        names: The three topics, where they have other names.
    """

    def __init__(
        self,
        consumer: Consumer,
        names: tuple[str, str, str] = (topics.TRANSACTIONS.name, topics.PREDICTIONS.name, topics.TRANSACTIONS.dlq),
        *,
        batch: int = 10_000,
    ) -> None:
        self._consumer = consumer
        self._log, self._verdicts, self._dlq = names
        self._batch = batch
        self._columns = {name: (_Column(), _Column()) for name in names}
        self._stray = 0
        self._rejected_rows = 0
        self._redrives = RedriveLedger(self._dlq)
        self._partitions: frozenset[TopicPartition] = frozenset()
        self._whole = True

    def read(self) -> Reconciliation:
        """Read on to the end as it is now, the log first, and reconcile all that was read so far.

        Raises:
            DependencyUnavailable: The brokers do not answer, or a topic does not exist.
        """
        self._assign()
        ends: Mapping[TopicPartition, int] = self._consumer.end_offsets(self._partitions)
        behind = set(self._partitions)
        while behind:
            self._take(self._consumer.poll(0.2, self._batch))
            behind = {p for p in behind if self._consumer.position(p) < ends[p]}
        (ids, positions), (verdicts, verdict_positions) = (
            (a.array(), b.array()) for a, b in (self._columns[self._log], self._columns[self._verdicts])
        )
        return reconcile(
            ids,
            positions,
            verdicts,
            verdict_positions,
            self._columns[self._dlq][1].array(),
            letters_without_origin=self._stray,
            rejected_rows=self._rejected_rows,
            log_is_whole=self._whole,
            redrives=self._redrives.result(log_is_whole=self._whole),
        )

    def read_until_reconciled(self, wait_s: float) -> Reconciliation:
        """Read on until the log reconciles, at most *wait_s*; for a predictor that is still working on it."""
        deadline = time.monotonic() + wait_s
        while not (result := self.read()).reconciled and time.monotonic() < deadline:
            self._take(self._consumer.poll(min(0.5, max(0.0, deadline - time.monotonic())), self._batch))
        return result

    def ids_at(self, topic: str, positions: U64, limit: int = 20) -> list[str]:
        """Transaction ids (or the position, where there is none) of the first *limit* of *positions*. Ends the
        reading."""
        ids = []
        for position in (unpack(int(packed)) for packed in positions[:limit]):
            partition = TopicPartition(topic, position.partition)
            self._consumer.assign([partition])
            self._consumer.seek(partition, position.offset)
            records = self._consumer.poll(5.0, 1)
            id_ = transaction_id(records[0].value) if records and records[0].offset == position.offset else None
            ids.append(id_ or f"{topic}[{position.partition}]@{position.offset}")
        return ids

    def _assign(self) -> None:
        if self._partitions:
            return
        all_partitions: set[TopicPartition] = set()
        for name in (self._log, self._verdicts, self._dlq):
            if not (partitions := self._consumer.partitions_of(name)):
                raise DependencyUnavailable(
                    f"topic {name} does not exist: run `centinela topics create`", dependency="kafka"
                )
            all_partitions |= partitions
        of_log = [p for p in all_partitions if p.topic == self._log]
        self._whole = not any(self._consumer.beginning_offsets(of_log).values())
        self._consumer.assign(all_partitions)
        self._partitions = frozenset(all_partitions)

    def _take(self, records: Sequence[Record]) -> None:
        for name, (ids, positions) in self._columns.items():
            mine = [r for r in records if r.topic == name]
            if not mine:
                continue
            if name == self._log:
                self._redrives.take_log(mine)
            if name == self._dlq:
                letters = [r for r in mine if not self._redrives.take_resolution(r)]
                from_log = [r for r in letters if not is_rejected_row(r)]
                self._rejected_rows += len(letters) - len(from_log)
                origins = [letter_origin(r, self._log) for r in from_log]
                positions.extend([o for o in origins if o is not None])
                self._stray += origins.count(None)
            else:
                ids.extend([id_hash(r.value) for r in mine])
                positions.extend([pack(r.partition, r.offset) for r in mine])
