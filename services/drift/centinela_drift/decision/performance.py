"""Performance on labels that arrive late [P]."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from centinela.events import LabelReported
from centinela.features.keys import NOBODY, hash_id
from centinela.model.panes import PaneRows
from centinela_drift.decision.windows import RowLog

LABEL_ROW = np.dtype([("id", "<u8"), ("occurred", "<i8"), ("reported", "<i8"), ("fraud", "u1")])
"""One label: hash of the transaction's id, both event times in ms, 1 for fraud. 25 bytes."""

CARDS_PER_DAY = 100
DAY_MS = 24 * 60 * 60 * 1000

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Measured:
    """Performance of one model over mature transactions; the measures are None where no fraud is known.

    ``low`` and ``high`` bound average precision at 95 %.
    """

    count: int
    frauds: int
    average_precision: float | None = None
    low: float | None = None
    high: float | None = None
    card_precision: float | None = None


class Labels:
    """Labels in order of arrival, to be asked what was known when."""

    def __init__(self) -> None:
        self._log = RowLog(LABEL_ROW)

    def __len__(self) -> int:
        return len(self._log)

    def add(self, label: LabelReported) -> None:
        """Remember *label*. The same label twice changes nothing that is asked."""
        row = np.empty(1, LABEL_ROW)
        row[0] = (hash_id(label.transaction_id), _ms(label.occurred_at), _ms(label.reported_at), label.is_fraud)
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
        """Forget the labels of transactions before *before_ms*."""
        self._log.keep("occurred", before_ms)

    def array(self) -> NDArray[np.void]:
        """Every label held, of ``LABEL_ROW``."""
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
    return Measured(
        len(rows), frauds, value, low, high, card_precision(is_fraud, scores, rows["user"], days, cards_per_day)
    )


def average_precision(is_fraud: Bools, scores: Floats) -> float:
    """Sum over thresholds of the gain in recall times the precision there; equal scores share a threshold.

    Args:
        is_fraud: Labels, shape (n,), at least one True.
        scores: Scores, shape (n,).
    """
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(is_fraud[order])
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    gained = np.diff(hits[ends], prepend=0)
    return float(np.sum(gained * hits[ends] / (ends + 1)) / hits[-1])


def average_precision_interval(value: float, frauds: int, confidence: float = 0.95) -> tuple[float, float]:
    """Bounds of average precision from *frauds* positives, by the logit of a binomial proportion.

    Source:
        Boyd, Eng, Page: Area under the Precision-Recall Curve: Point Estimates and Confidence Intervals (2013).
    """
    inside = min(max(value, 0.5 / frauds), 1 - 0.5 / frauds) if frauds > 1 else 0.5
    centre = np.log(inside / (1 - inside))
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) / np.sqrt(frauds * inside * (1 - inside))
    return float(1 / (1 + np.exp(reach - centre))), float(1 / (1 + np.exp(-reach - centre)))


def card_precision(
    is_fraud: Bools, scores: Floats, cards: NDArray[np.uint64], days: NDArray[np.int64], k: int
) -> float | None:
    """Mean over days of the share of compromised cards among the *k* most suspicious cards of the day.

    A card's score of a day is its highest; it is compromised where any of its transactions that day is fraud. A card
    found once is not looked at again. Transactions without a card are left out.

    Args:
        is_fraud: Labels, shape (n,).
        scores: Scores, shape (n,).
        cards: Hashes of the cards, ``NOBODY`` where unknown, shape (n,).
        days: Number of the day, shape (n,).
        k: Cards that can be checked a day; also the denominator.

    Returns:
        In [0, 1]; None where no transaction names its card.

    Source:
        Fraud Detection Handbook, ch. 4, "Precision top-k metrics" (with removal of detected cards).
    """
    known = cards != NOBODY
    if not known.any():
        return None
    found = np.empty(0, np.uint64)
    shares = []
    for day in np.unique(days[known]).tolist():
        today = known & (days == day)
        names, member = np.unique(cards[today], return_inverse=True)
        highest, compromised = np.full(len(names), -np.inf), np.zeros(len(names), bool)
        np.maximum.at(highest, member, scores[today])
        np.logical_or.at(compromised, member, is_fraud[today])
        fresh = np.flatnonzero(~np.isin(names, found))
        top = fresh[np.argsort(-highest[fresh], kind="stable")[:k]]
        caught = names[top[compromised[top]]]
        found = np.concatenate([found, caught])
        shares.append(len(caught) / k)
    return float(np.mean(shares))


def _ms(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)
