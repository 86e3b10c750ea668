"""The gateway's view of the log: feature state of all partitions and the verdicts given, followed from Kafka, never written.

Followers apply what they read under one lock; the thread that decides reads features under the same lock. What is decoded
is decoded outside it, so that it is held for milliseconds at most.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from centinela.clock import Clock
from centinela.errors import DependencyUnavailable
from centinela.events import TransactionReceived
from centinela.features.assemble import Columns, assemble, attribute_matrix
from centinela.features.configured import layout_of
from centinela.features.layout import USER_FEATURES, FeatureLayout
from centinela.features.snapshot import SnapshotDamaged
from centinela.features.store import SnapshotStore
from centinela.kafka.connect import consumer
from centinela.kafka.partitioner import partition_of
from centinela.kafka.port import Consumer, Record, TopicPartition
from centinela.kafka.reader import TableFollower, TableReader, open_table
from centinela.telemetry.health import Health
from centinela.topics import LABELS, PREDICTIONS, TERMINAL_ACTIVITY, TRANSACTIONS
from centinela_predictor import metrics
from centinela_predictor.admission import admit
from centinela_predictor.settings import PredictorSettings
from centinela_predictor.state import PartitionState
from centinela_predictor.terminal_feed import TerminalTable
from centinela_predictor.threads import GuardedThread
from centinela_predictor.verdicts import GivenVerdict, VerdictBook, adopted

_log = structlog.get_logger()
Matrix = NDArray[np.float64]
Place = Callable[[Consumer, TableReader, frozenset[TopicPartition]], None]
"""Puts a table's reader, given the consumer below it and the topic's partitions, at its starting offsets."""


class StateReplica:
    """Feature state of every partition, as the stream has it after the same records.

    Args:
        layout: The columns of the features.
        book: Learns the verdicts that gateways gave.
        dedupe_ids: As the stream has it.
        store_of: Where the stream keeps the snapshots of a partition; they are only read.
    """

    def __init__(self, layout: FeatureLayout, book: VerdictBook, clock: Clock, dedupe_ids: int, store_of: Callable[[int], SnapshotStore]) -> None:
        self.layout = layout
        self._book, self._clock, self._dedupe_ids, self._store_of = book, clock, dedupe_ids, store_of
        self._lock = threading.Lock()
        self._partitions: list[PartitionState] = []
        self._terminals = TerminalTable(layout=layout)

    def place(self, reader: Consumer, table: TableReader, partitions: frozenset[TopicPartition]) -> None:
        """Begin anew with *partitions* (all of the topic's): each from the stream's newest snapshot, else from its beginning."""
        first, end = reader.beginning_offsets(partitions), reader.end_offsets(partitions)
        states: list[PartitionState] = []
        for partition in sorted(partitions):
            state, position = self._restored(partition.partition, end[partition]) or (PartitionState(self._dedupe_ids, self.layout), 0)
            table.seek(partition, max(position, first[partition]))
            states.append(state)
        with self._lock:
            self._partitions = states

    def features(self, transactions: list[TransactionReceived]) -> Matrix:
        """The rows of *transactions*, each as if it were the next in the log; shape (n, len(layout.names)). Changes nothing."""
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
            admitted = admit([record for record in records if record.partition == number], now, self.layout)
            with self._lock:
                self._partitions[number].apply(admitted.columns)
            for event in admitted.events:
                if verdict := adopted(event):
                    self._book.learn(verdict, final=False)
            metrics.REPLICA_RECORDS.labels(TRANSACTIONS.name, "applied").inc(len(admitted.events))
            metrics.REPLICA_RECORDS.labels(TRANSACTIONS.name, "refused").inc(len(admitted.refused))

    def apply_terminals(self, records: Sequence[Record]) -> None:
        """Take records of ``terminal-activity`` and ``labels``, in any order."""
        with self._lock:
            self._terminals.apply(records, self._clock.now())

    def _restored(self, number: int, at_most: int) -> tuple[PartitionState, int] | None:
        for position, data in self._store_of(number).load(at_most):
            try:
                state = PartitionState.from_bytes(data, self._dedupe_ids, self.layout)
            except SnapshotDamaged as damaged:
                _log.warning("snapshot.refused", state="partition", partition=number, position=position, detail=str(damaged))
                continue
            _log.info("snapshot.restored", state="partition", partition=number, position=position, users=len(state.users))
            return state, position
        return None

    def _by_partition(self, transactions: list[TransactionReceived]) -> Iterator[tuple[PartitionState, NDArray[np.intp]]]:
        """Each partition concerned, with the rows of *transactions* whose key it has."""
        keys = [(transaction.user_id or transaction.transaction_id).encode() for transaction in transactions]
        owner = np.array([partition_of(key, len(self._partitions)) for key in keys], dtype=np.intp)
        for number in np.unique(owner).tolist():
            yield self._partitions[number], np.flatnonzero(owner == number)


class VerdictFollower:
    """Tells *book* what ``predictions`` say: the final word on each transaction."""

    def __init__(self, book: VerdictBook) -> None:
        self._book = book
        self._decoder = msgspec.json.Decoder(GivenVerdict)

    def apply(self, records: Sequence[Record]) -> None:
        """Take records of ``predictions``."""
        refused = 0
        for record in records:
            try:
                self._book.learn(self._decoder.decode(record.value or b""), final=True)
            except (msgspec.DecodeError, UnicodeDecodeError):
                refused += 1
        metrics.REPLICA_RECORDS.labels(PREDICTIONS.name, "applied").inc(len(records) - refused)
        metrics.REPLICA_RECORDS.labels(PREDICTIONS.name, "refused").inc(refused)


class PlacedReader(TableReader):
    """A reader of one topic that *place* puts at its starting offsets before the first read, again until that succeeds."""

    def __init__(self, reader: Consumer, topic: str, place: Place) -> None:
        super().__init__(reader, [topic])
        self._reader, self._topic, self._place, self._placed = reader, topic, place, False

    def poll(self, timeout_s: float) -> list[Record]:
        """See ``TableReader``."""
        if not self._placed:
            partitions = self._reader.partitions_of(self._topic)
            if not partitions:
                raise DependencyUnavailable(f"topic {self._topic} does not exist: run `centinela topics create`", dependency="kafka")
            self._place(self._reader, self, partitions)
            self._placed = True
        return super().poll(timeout_s)


def newest(records: int) -> Place:
    """Places a reader about *records* before the end, spread evenly over the partitions."""

    def place(reader: Consumer, table: TableReader, partitions: frozenset[TopicPartition]) -> None:
        first, end = reader.beginning_offsets(partitions), reader.end_offsets(partitions)
        for partition in partitions:
            table.seek(partition, max(first[partition], end[partition] - records // len(partitions)))

    return place


class Replica:
    """The gateway's followers: each a thread that starts at the right place and waits out a broker that is away."""

    def __init__(self, state: StateReplica, threads: list[GuardedThread]) -> None:
        self.state, self.threads = state, threads


def build_replica(settings: PredictorSettings, book: VerdictBook, clock: Clock, health: Health, stop: threading.Event) -> Replica:
    """The replica on the configured brokers; *health* waits until everything followed was read to its end once."""
    def store_of(partition: int) -> SnapshotStore:
        return SnapshotStore(settings.state_dir / "partitions" / str(partition))

    state = StateReplica(layout_of(settings), book, clock, settings.dedupe_ids, store_of)
    verdicts = VerdictFollower(book)

    def reader(topic: str, place: Place) -> TableReader:
        return PlacedReader(consumer(settings, group=None, client="confluent"), topic, place)

    def terminals() -> TableReader:
        return open_table(settings, [TERMINAL_ACTIVITY.name, LABELS.name], client="confluent")

    follow = partial(TableFollower, health=health, stop=stop)
    followers = {
        "transactions": follow(partial(reader, TRANSACTIONS.name, state.place), state.apply_transactions, condition="transactions"),
        "terminals": follow(terminals, state.apply_terminals, condition="terminals"),
        "verdicts": follow(partial(reader, PREDICTIONS.name, newest(settings.gateway_verdicts)), verdicts.apply, condition="verdicts"),
    }
    return Replica(state, [GuardedThread(f"follow-{name}", follower.run, health, stop.set) for name, follower in followers.items()])
