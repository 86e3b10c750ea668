"""The gateway's view of the log: feature state of all partitions and the verdicts given, followed from Kafka, never written.

Followers apply what they read under one lock; the thread that decides reads features under the same lock. What is decoded
is decoded outside it, so that it is held for milliseconds at most.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from centinela.codec import Decoder
from centinela.errors import InvalidRecord
from centinela.events import TransactionReceived
from centinela.features.assemble import Columns, assemble, attribute_matrix
from centinela.features.layout import USER_FEATURES, FeatureLayout
from centinela.features.terminals import TerminalState
from centinela.kafka.partitioner import partition_of
from centinela.kafka.port import Consumer, Record
from centinela.kafka.reader import TableReader
from centinela.topics import PREDICTIONS, TRANSACTIONS
from centinela_predictor import metrics
from centinela_predictor.verdicts import GivenVerdict, VerdictBook, adopted

Matrix = NDArray[np.float64]


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
                self._reach(number + 1)
                self._partitions[number].apply(columns)
            for event in good:
                if verdict := adopted(event):
                    self._book.learn(verdict, final=False)

    def _owner(self, transaction: TransactionReceived) -> int:
        key = transaction.user_id or transaction.transaction_id
        return partition_of(key.encode(), len(self._partitions))

    def _reach(self, count: int) -> None:
        while len(self._partitions) < count:
            self._partitions.append(_Partition())


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
    """A reader that *place* puts at its starting offsets before the first read, again until that succeeds."""

    def __init__(self, reader: Consumer, topics: Sequence[str], place: Callable[[Consumer, TableReader], None]) -> None:
        super().__init__(reader, topics)
        self._reader, self._place, self._placed = reader, place, False

    def poll(self, timeout_s: float) -> list[Record]:
        """See ``TableReader``."""
        if not self._placed:
            self._place(self._reader, self)
            self._placed = True
        return super().poll(timeout_s)


def newest(topic: str, records: int) -> Callable[[Consumer, TableReader], None]:
    """Places a reader about *records* before the end of *topic*, spread evenly over its partitions."""

    def place(reader: Consumer, table: TableReader) -> None:
        partitions = reader.partitions_of(topic)
        first, end = reader.beginning_offsets(partitions), reader.end_offsets(partitions)
        for partition in partitions:
            table.seek(partition, max(first[partition], end[partition] - records // len(partitions)))

    return place
