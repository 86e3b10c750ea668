"""Performance on labels that arrive late."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centinela.events import LabelReported
from centinela.features.keys import MISSING_ID, hash_id
from centinela.model.metrics import average_precision, average_precision_interval, card_precision
from centinela.model.panes import PaneRows
from centinela.times import DAY_MS, to_ms
from centinela_drift.decision.windows import RowLog

LABEL_ROW = np.dtype([("id", "<u8"), ("occurred", "<i8"), ("reported", "<i8"), ("fraud", "u1")])
"""One label: hash of the transaction's id, both event times in ms, 1 for fraud. 25 bytes."""

CARDS_PER_DAY = 100

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Measured:
    """Performance of one model over mature transactions; the measures are None if no fraud is known.

    ``low`` and ``high`` bound average precision at 95 %.
    """

    count: int
    frauds: int
    average_precision: float | None = None
    low: float | None = None
    high: float | None = None
    card_precision: float | None = None


class Labels:
    """Labels in order of arrival; they show what was known at any time."""

    def __init__(self) -> None:
        self._log = RowLog(LABEL_ROW)

    def __len__(self) -> int:
        return len(self._log)

    def add(self, label: LabelReported) -> None:
        """Add *label*. Adding the same label twice changes no result."""
        row = np.empty(1, LABEL_ROW)
        row[0] = (hash_id(label.transaction_id), to_ms(label.occurred_at), to_ms(label.reported_at), label.is_fraud)
        self._log.append(row)

    def frauds_known(self, ids: NDArray[np.uint64], as_of_ms: int) -> Bools:
        """Which of *ids*, shape (n,), count as fraud by the labels reported until *as_of_ms*.

        The label reported last decides (a chargeback may be taken back); without one, a transaction counts as genuine.
        """
        rows = self._log.all()
        rows = rows[rows["reported"] <= as_of_ms]
        rows = rows[np.lexsort((rows["fraud"], rows["reported"], rows["id"]))]
        last = np.ones(len(rows), bool)
        last[:-1] = rows["id"][1:] != rows["id"][:-1]
        return np.isin(ids, rows["id"][last & (rows["fraud"] == 1)])

    def expire(self, before_ms: int) -> None:
        """Drop the labels of transactions before *before_ms*."""
        self._log.keep("occurred", before_ms)

    def array(self) -> NDArray[np.void]:
        """Every label in memory, of ``LABEL_ROW``."""
        return self._log.all()

    def load(self, rows: NDArray[np.void]) -> None:
        """Replace the content by what ``array`` gave."""
        self._log = RowLog(LABEL_ROW)
        self._log.append(rows)


def measure(rows: PaneRows, is_fraud: Bools, *, start_ms: int, cards_per_day: int = CARDS_PER_DAY) -> Measured:
    """Performance on *rows* (mature, each once), shape (n,), with *is_fraud* aligned; days count from *start_ms*."""
    frauds = int(is_fraud.sum())
    if not frauds:
        return Measured(len(rows), 0)
    scores = rows["score"].astype(np.float64)
    value = average_precision(is_fraud, scores)
    low, high = average_precision_interval(value, frauds)
    days = (rows["time"] - start_ms) // DAY_MS
    cards = rows["user"]
    has_card = cards != MISSING_ID
    caught = card_precision(is_fraud, scores, cards, has_card, days, cards_per_day) if has_card.any() else None
    return Measured(len(rows), frauds, value, low, high, caught)
