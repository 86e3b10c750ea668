"""The gateway's view of the log: feature state of all partitions and the verdicts given, followed from Kafka, never
written.

Followers apply what they read under one lock; the thread that decides reads features under the same lock. What is
decoded is decoded outside it, so that it is held for milliseconds at most.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from centinela.clock import Clock
from centinela.consuming.table_reader import TableReader
from centinela.errors import DependencyUnavailable
from centinela.events import TransactionReceived
from centinela.features.assemble import Columns, assemble, attribute_matrix
from centinela.features.layout import USER_FEATURES, FeatureLayout
from centinela.kafka.partitioner import partition_of
from centinela.kafka.port import Consumer, Record, TopicPartition
from centinela.topics import PREDICTIONS, TRANSACTIONS
from centinela_predictor.gateway import metrics
from centinela_predictor.gateway.verdict_book import GivenVerdict, VerdictBook, adopted
from centinela_predictor.state.admission import admit
from centinela_predictor.state.partition_state import PartitionState
from centinela_predictor.state.partition_store import LogChanged, PartitionHome
from centinela_predictor.state.repartition import without_strays
from centinela_predictor.state.terminal_feed import TerminalTable

_log = structlog.get_logger()
Matrix = NDArray[np.float64]
LOOKS_EVERY_S = 5.0
Place = Callable[[Consumer, TableReader, frozenset[TopicPartition]], None]
"""Puts a table's reader, given the consumer below it and the topic's partitions, at its starting offsets."""


class StateReplica:
    """Feature state of every partition, as the stream has it after the same records.

    Args:
        layout: The columns of the features.
        book: Learns the verdicts that gateways gave.
        home: Where the stream keeps the state of partitions; it is only read.
    """

    def __init__(self, layout: FeatureLayout, book: VerdictBook, clock: Clock, home: PartitionHome) -> None:
        self.layout = layout
        self._book, self._clock, self._home = book, clock, home
        self._lock = threading.Lock()
        self._partitions: list[PartitionState] = []
        self._terminals = TerminalTable(layout=layout)

    def place(self, reader: Consumer, table: TableReader, partitions: frozenset[TopicPartition]) -> None:
        """Begin anew with *partitions* (all of the topic's): each from the stream's newest snapshot, else from its
        beginning.

        Where the topic has grown and the stream has not kept all of its new states yet, they are made here from the
        whole log.
        """
        self._home.open()
        self._home.check_partitions(len(partitions))
        first, end = reader.beginning_offsets(partitions), reader.end_offsets(partitions)
        found = {p: self._home.load(p.partition, end[p]) for p in sorted(partitions)}
        if self._home.grown and None in found.values():
            states = self._home.regroup({p.partition: end[p] for p in partitions})
            found = {p: (states[p.partition], end[p]) for p in found}
        placed = {p: kept or (self._home.new_state(), 0) for p, kept in found.items()}
        for partition, (_, position) in placed.items():
            table.seek(partition, max(position, first[partition]))
        with self._lock:
            self._partitions = [state for state, _ in placed.values()]

    def features(self, transactions: list[TransactionReceived]) -> Matrix:
        """The rows of *transactions*, each as if it were the next in the log; shape (n, len(layout.names)). Changes
        nothing."""
        columns = Columns.of(transactions, self.layout)
        users = np.empty((len(columns), len(USER_FEATURES) + len(self.layout.user_extra)))
        with self._lock:
            for partition, rows in self._by_partition(transactions):
                part = columns.take(rows)
                users[rows] = partition.users.read(part.users, part.times, part.minor, part.stored)
            terminals = self._terminals.state.read(columns.terminals, columns.times)
        return assemble(columns, users, terminals, attribute_matrix(transactions, self.layout))

    def seen(self, transactions: list[TransactionReceived]) -> list[bool]:
        """Whether each is in the log already, as far as it was read and ids are remembered."""
        ids = Columns.of(transactions).ids
        known = np.zeros(len(ids), dtype=np.bool_)
        with self._lock:
            for partition, rows in self._by_partition(transactions):
                known[rows] = ~partition.seen.unseen(ids[rows])
        return [bool(k) for k in known]

    def apply_transactions(self, records: Sequence[Record]) -> None:
        """Take records of ``transactions``, in log order within a partition; what the stream refuses is passed over."""
        now = self._clock.now()
        for number in sorted({record.partition for record in records}):
            state = self._partitions[number]
            part = admit([record for record in records if record.partition == number], now, self.layout)
            admitted = without_strays(part, state, number, len(self._partitions))
            with self._lock:
                state.apply(admitted.columns)
            for event in admitted.events:
                if verdict := adopted(event):
                    self._book.learn(verdict, final=False)
            metrics.REPLICA_RECORDS.labels(TRANSACTIONS.name, "applied").inc(len(admitted.events))
            metrics.REPLICA_RECORDS.labels(TRANSACTIONS.name, "refused").inc(len(admitted.refused))

    def apply_terminals(self, records: Sequence[Record]) -> None:
        """Take records of ``terminal-activity`` and ``labels``, in any order."""
        with self._lock:
            self._terminals.apply(records, self._clock.now())

    def _by_partition(
        self, transactions: list[TransactionReceived]
    ) -> Iterator[tuple[PartitionState, NDArray[np.intp]]]:
        """Each partition concerned, with the rows of *transactions* whose key it has."""
        keys = [(transaction.user_id or transaction.transaction_id).encode() for transaction in transactions]
        owner = np.array([partition_of(key, len(self._partitions)) for key in keys], dtype=np.intp)
        for number in np.unique(owner).tolist():
            yield self._partitions[number], np.flatnonzero(owner == number)


class VerdictFollower:
    """Tells *book* what ``predictions`` say: the final word on each transaction.

    Args:
        layout: The columns of the features here: they tell a later payload under the same id from the first.
    """

    def __init__(self, book: VerdictBook, layout: FeatureLayout) -> None:
        self._book, self._layout = book, layout
        self._decoder = msgspec.json.Decoder(GivenVerdict)

    def apply(self, records: Sequence[Record]) -> None:
        """Take records of ``predictions``."""
        refused = 0
        for record in records:
            try:
                self._book.learn(self._decoder.decode(record.value or b"").without_vector(self._layout), final=True)
            except (msgspec.DecodeError, UnicodeDecodeError):
                refused += 1
        metrics.REPLICA_RECORDS.labels(PREDICTIONS.name, "applied").inc(len(records) - refused)
        metrics.REPLICA_RECORDS.labels(PREDICTIONS.name, "refused").inc(refused)


class PlacedReader(TableReader):
    """A reader of one topic that *place* puts at its starting offsets before the first read, again until that succeeds.

    A topic that has grown since is not read on: ``poll`` raises ``LogChanged`` within ``LOOKS_EVERY_S``.
    """

    def __init__(self, reader: Consumer, topic: str, place: Place, clock: Clock) -> None:
        super().__init__(reader, [topic])
        self._reader, self._topic, self._place, self._clock = reader, topic, place, clock
        self._placed = 0
        self._looked_at = 0.0

    def poll(self, timeout_s: float) -> list[Record]:
        """See ``TableReader``."""
        now = self._clock.monotonic()
        if not self._placed or now - self._looked_at > LOOKS_EVERY_S:
            self._looked_at = now
            self._look()
        return super().poll(timeout_s)

    def _look(self) -> None:
        partitions = self._reader.partitions_of(self._topic)
        if not partitions:
            raise DependencyUnavailable(
                f"topic {self._topic} does not exist: run `centinela topics create`", dependency="kafka"
            )
        if not self._placed:
            self._place(self._reader, self, partitions)
            self._placed = len(partitions)
        elif len(partitions) != self._placed:
            raise LogChanged(
                f"topic {self._topic} has {len(partitions)} partitions, not {self._placed} as at the start: this"
                " process ends, to begin anew"
            )


def newest(records: int) -> Place:
    """Places a reader about *records* before the end, spread evenly over the partitions."""

    def place(reader: Consumer, table: TableReader, partitions: frozenset[TopicPartition]) -> None:
        first, end = reader.beginning_offsets(partitions), reader.end_offsets(partitions)
        for partition in partitions:
            table.seek(partition, max(first[partition], end[partition] - records // len(partitions)))

    return place
