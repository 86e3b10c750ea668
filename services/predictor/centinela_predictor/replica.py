"""The gateway's view of the log: feature state of all partitions and the verdicts given, followed from Kafka, never written.

Followers apply what they read under one lock; the thread that decides reads features under the same lock. What is decoded
is decoded outside it, so that it is held for milliseconds at most.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from centinela.codec import Decoder
from centinela.errors import DependencyUnavailable, InvalidRecord
from centinela.events import TransactionReceived
from centinela.features.assemble import Columns, assemble, attribute_matrix
from centinela.features.idtable import SeenIds
from centinela.features.layout import USER_FEATURES, FeatureLayout
from centinela.features.terminals import TerminalState
from centinela.features.users import UserState
from centinela.kafka.connect import consumer
from centinela.kafka.partitioner import partition_of
from centinela.kafka.port import Consumer, Record, TopicPartition
from centinela.kafka.reader import TableFollower, TableReader
from centinela.telemetry.health import Health
from centinela.topics import PREDICTIONS, TRANSACTIONS
from centinela_predictor import metrics
from centinela_predictor.settings import PredictorSettings
from centinela_predictor.threads import GuardedThread
from centinela_predictor.verdicts import GivenVerdict, VerdictBook, adopted

Matrix = NDArray[np.float64]
Place = Callable[[Consumer, TableReader, frozenset[TopicPartition]], None]
"""Puts a table's reader, given the consumer below it and the topic's partitions, at its starting offsets."""


class _Partition:
    """What the stream holds of one partition: which ids were seen, and the users' histories."""

    def __init__(self) -> None:
        self.seen, self.users = SeenIds(), UserState()

    def apply(self, columns: Columns) -> None:
        """Take transactions in log order; copies leave no trace."""
        new = columns.take(self.seen.admit(columns.ids))
        self.users.apply(new.users, new.times, new.minor)


class StateReplica:
    """Feature state of every partition, as the stream has it after the same records.

    Args:
        layout: The columns of the features.
        book: Learns the verdicts that gateways gave.
    """

    def __init__(self, layout: FeatureLayout, book: VerdictBook) -> None:
        self.layout = layout
        self._book = book
        self._lock = threading.Lock()
        self._partitions: list[_Partition] = []
        self._terminals = TerminalState()
        self._decoder = Decoder(TransactionReceived)

    def place(self, _reader: Consumer, _table: TableReader, partitions: frozenset[TopicPartition]) -> None:
        """Begin anew with *partitions* (all of the topic's), from their beginning."""
        with self._lock:
            self._partitions = [_Partition() for _ in partitions]

    def features(self, transactions: list[TransactionReceived]) -> Matrix:
        """The rows of *transactions*, each as if it were the next in the log; shape (n, len(layout.names)). Changes nothing."""
        columns = Columns.of(transactions)
        users = np.full((len(columns), len(USER_FEATURES)), np.nan)
        with self._lock:
            owner = np.array([self._owner(transaction) for transaction in transactions])
            for number in np.unique(owner).tolist():
                rows = np.flatnonzero(owner == number)
                part = columns.take(rows)
                users[rows] = self._partitions[number].users.read(part.users, part.times, part.minor)
            terminals = self._terminals.read(columns.terminals, columns.times)
        return assemble(columns, users, terminals, attribute_matrix(transactions, self.layout))

    def seen(self, transactions: list[TransactionReceived]) -> list[bool]:
        """Whether each is in the log already, as far as it was read and ids are remembered."""
        columns = Columns.of(transactions)
        with self._lock:
            return [
                not self._partitions[self._owner(transaction)].seen.unseen(columns.ids[n:n + 1])[0] for n, transaction in enumerate(transactions)
            ]

    def apply_transactions(self, records: Sequence[Record]) -> None:
        """Take records of ``transactions``, in log order within a partition."""
        for number in sorted({record.partition for record in records}):
            values = [record.value for record in records if record.partition == number]
            good = [event for event in self._decoder.decode_many(values) if not isinstance(event, InvalidRecord)]
            metrics.REPLICA_RECORDS.labels(TRANSACTIONS.name, "refused").inc(len(values) - len(good))
            metrics.REPLICA_RECORDS.labels(TRANSACTIONS.name, "applied").inc(len(good))
            if not good:
                continue
            columns = Columns.of(good)
            with self._lock:
                self._partitions[number].apply(columns)
            for event in good:
                if verdict := adopted(event):
                    self._book.learn(verdict, final=False)

    def _owner(self, transaction: TransactionReceived) -> int:
        key = transaction.user_id or transaction.transaction_id
        return partition_of(key.encode(), len(self._partitions))



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


def build_replica(settings: PredictorSettings, book: VerdictBook, health: Health, stop: threading.Event) -> Replica:
    """The replica on the configured brokers; *health* waits until transactions and verdicts were read to their end once."""
    state = StateReplica(FeatureLayout(settings.attributes), book)
    verdicts = VerdictFollower(book)

    def reader(topic: str, place: Place) -> TableReader:
        return PlacedReader(consumer(settings, group=None, client="confluent"), topic, place)

    followers = [
        TableFollower(partial(reader, TRANSACTIONS.name, state.place), state.apply_transactions, health=health, stop=stop, condition="state"),
        TableFollower(partial(reader, PREDICTIONS.name, newest(settings.gateway_verdicts)), verdicts.apply, health=health, stop=stop,
                      condition="verdicts"),
    ]
    return Replica(state, [GuardedThread(f"follow-{n}", follower.run, health, stop.set) for n, follower in enumerate(followers)])
