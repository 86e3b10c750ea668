"""The gateway's view of the log: feature state of all partitions and the verdicts given, read and never written.

Followers apply what they read under one lock, under which the deciding thread reads features. They decode outside it,
so that it is held for milliseconds at most.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from centinela.clock import Clock
from centinela.codec import DECODE_ERRORS
from centinela.consuming.table_reader import TableReader
from centinela.errors import DependencyUnavailable
from centinela.events import TransactionReceived
from centinela.features.assemble import Columns, assemble, attribute_matrix
from centinela.features.layout import USER_FEATURES, FeatureLayout
from centinela.kafka.partitioner import partition_of
from centinela.kafka.port import Consumer, Record, TopicPartition
from centinela.liveness.progress import report_progress
from centinela.topics import PREDICTIONS, TRANSACTIONS
from centinela_predictor.gateway import metrics
from centinela_predictor.gateway.verdict_cache import GivenVerdict, VerdictCache, gateway_verdict
from centinela_predictor.state.admission import admit
from centinela_predictor.state.misrouted import MisroutedCheck, OnMisrouted
from centinela_predictor.state.partition_state import PartitionState
from centinela_predictor.state.partition_store import LogChanged, PartitionStores
from centinela_predictor.state.terminal_feed import TerminalTable

_log = structlog.get_logger(__name__)
Matrix = NDArray[np.float64]
SeekStart = Callable[[Consumer, TableReader, frozenset[TopicPartition]], None]
"""Moves a table's reader, given its consumer and the topic's partitions, to its starting offsets."""


class StateReplica:
    """Feature state of every partition, as the stream has it after the same records.

    Args:
        layout: The columns of the features.
        cache: Gets the verdicts that gateways gave.
        stores: Where the stream keeps the state of partitions; it is only read.
        on_misrouted: What the stream does with transactions in another partition than their user's.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        cache: VerdictCache,
        clock: Clock,
        stores: PartitionStores,
        on_misrouted: OnMisrouted = "count",
    ) -> None:
        self.layout = layout
        self.currency = stores.rules.rates.base
        self._cache = cache
        self._clock = clock
        self._stores = stores
        self._misrouted = MisroutedCheck(on_misrouted, clock, counts=False)
        self._lock = threading.Lock()
        self._partitions: list[PartitionState] = []
        self._terminals = TerminalTable(layout=layout)

    def seek_start(self, reader: Consumer, table: TableReader, partitions: frozenset[TopicPartition]) -> None:
        """Start again with *partitions* (all of the topic's): each from the stream's newest snapshot, else from its
        beginning.

        Where the topic has grown and the stream has not saved all of its new states yet, they are built here from the
        whole log.
        """
        self._stores.open()
        self._stores.check_partitions(len(partitions))
        first, end = reader.beginning_offsets(partitions), reader.end_offsets(partitions)
        found = {p: self._stores.load(p.partition, end[p]) for p in sorted(partitions)}
        if self._stores.grown and None in found.values():
            states = self._stores.repartition({p.partition: end[p] for p in partitions})
            found = {p: (states[p.partition], end[p]) for p in found}
        placed = {p: kept or (self._stores.new_state(), 0) for p, kept in found.items()}
        for partition, (_, position) in placed.items():
            table.seek(partition, max(position, first[partition]))
        with self._lock:
            self._partitions = [state for state, _ in placed.values()]

    def features(self, transactions: list[TransactionReceived]) -> Matrix:
        """The rows of *transactions*, each as if it were the next in the log; shape (n, len(layout.names)). Changes
        nothing."""
        columns = Columns.of(transactions, self.layout, self._stores.rules.rates)
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
        seen = np.zeros(len(ids), dtype=np.bool_)
        with self._lock:
            for partition, rows in self._by_partition(transactions):
                seen[rows] = ~partition.seen.unseen(ids[rows])
        return [bool(s) for s in seen]

    def apply_transactions(self, records: Sequence[Record]) -> None:
        """Apply records of ``transactions``, in log order within a partition; what the stream refuses is skipped."""
        now = self._clock.now()
        for number in sorted({record.partition for record in records}):
            report_progress(self._clock)
            state = self._partitions[number]
            part = admit(
                [record for record in records if record.partition == number], now, self.layout, self._stores.rules
            )
            admitted = self._misrouted.apply(part, state, number, len(self._partitions))
            with self._lock:
                state.apply(admitted.columns)
            for event in admitted.events:
                if verdict := gateway_verdict(event):
                    self._cache.add_from_log(verdict, final=False)
            metrics.REPLICA_RECORDS.labels(TRANSACTIONS.name, "applied").inc(len(admitted.events))
            metrics.REPLICA_RECORDS.labels(TRANSACTIONS.name, "refused").inc(len(admitted.refused))

    def apply_terminals(self, records: Sequence[Record]) -> None:
        """Apply records of ``terminal-activity`` and ``labels``, in any order."""
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
    """Adds to *cache* what ``predictions`` say: the final verdict on each transaction.

    Args:
        layout: The columns of the features here, which tell another payload under the same id from the first.
    """

    def __init__(self, cache: VerdictCache, layout: FeatureLayout) -> None:
        self._cache = cache
        self._layout = layout
        self._decoder = msgspec.json.Decoder(GivenVerdict)

    def apply(self, records: Sequence[Record]) -> None:
        """Apply records of ``predictions``."""
        refused = 0
        for record in records:
            try:
                self._cache.add_from_log(
                    self._decoder.decode(record.value or b"").without_vector(self._layout), final=True
                )
            except DECODE_ERRORS:
                refused += 1
        metrics.REPLICA_RECORDS.labels(PREDICTIONS.name, "applied").inc(len(records) - refused)
        metrics.REPLICA_RECORDS.labels(PREDICTIONS.name, "refused").inc(refused)


class PositionedReader(TableReader):
    """A reader of one topic that *seek_start* moves to its starting offsets before the first read, until that succeeds.

    Where ``transactions`` has grown its users have moved, and it is not read further: ``poll`` raises ``LogChanged``.
    """

    def __init__(self, reader: Consumer, topic: str, seek_start: SeekStart, clock: Clock) -> None:
        super().__init__(reader, [topic], clock=clock)
        self._reader = reader
        self._topic = topic
        self._seek_start = seek_start
        self._placed = False

    def poll(self, timeout_s: float) -> list[Record]:
        """See ``TableReader``."""
        if not self._placed:
            self._place()
        return super().poll(timeout_s)

    def _place(self) -> None:
        partitions = self._reader.partitions_of(self._topic)
        if not partitions:
            raise DependencyUnavailable(
                f"topic {self._topic} does not exist: run `centinela topics create`", dependency="kafka"
            )
        self._seek_start(self._reader, self, partitions)
        self._placed = True

    def _add(self, partitions: frozenset[TopicPartition]) -> None:
        if self._topic != TRANSACTIONS.name:
            super()._add(partitions)
            return
        raise LogChanged(
            f"topic {self._topic} has {len(self.partitions | partitions)} partitions, not {len(self.partitions)} as at"
            " the start: this process ends, to start again"
        )


def from_newest(records: int) -> SeekStart:
    """Moves a reader to about *records* before the end, spread evenly over the partitions."""

    def seek_start(reader: Consumer, table: TableReader, partitions: frozenset[TopicPartition]) -> None:
        first, end = reader.beginning_offsets(partitions), reader.end_offsets(partitions)
        for partition in partitions:
            table.seek(partition, max(first[partition], end[partition] - records // len(partitions)))

    return seek_start
