"""Labels that wait until they are due."""

from __future__ import annotations

import heapq

import numpy as np

from centinela.datasets.columns import NEVER, Transactions
from centinela_ingest.encoding import DueLabel


class LabelSchedule:
    """Holds the labels of transactions that were sent until event time reaches their report."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, DueLabel]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, transactions: Transactions, start: int, end: int) -> None:
        """Add the labels of rows ``start .. end - 1``."""
        for row in np.flatnonzero(transactions.reported_ms[start:end] != NEVER) + start:
            label = DueLabel(
                int(transactions.reported_ms[row]),
                transactions.transaction_id[row],
                transactions.user_id[row],
                bool(transactions.is_fraud[row]),
                int(transactions.occurred_ms[row]),
            )
            heapq.heappush(self._heap, (label.reported_ms, self._count, label))
            self._count += 1

    def due(self, until_ms: int | None) -> list[DueLabel]:
        """The labels reported by *until_ms* (None: all the rest), in the order of their report."""
        due = []
        while self._heap and (until_ms is None or self._heap[0][0] <= until_ms):
            due.append(heapq.heappop(self._heap)[2])
        return due
