"""How good scores are, from labels: the measures that training, the gate and drift share. Plain numpy."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]


def average_precision(is_fraud: Bools, scores: Floats) -> float:
    """Sum over thresholds of the gain in recall times the precision there; equal scores share a threshold.

    Args:
        is_fraud: Labels, shape (n,).
        scores: Scores, shape (n,).

    Returns:
        In [0, 1]; NaN without a fraud.
    """
    order = np.argsort(-scores, kind="stable")
    return sorted_average_precision(is_fraud[order], scores[order], np.ones(len(scores)))


def sorted_average_precision(is_fraud: Bools, scores: Floats, weights: Floats) -> float:
    """``average_precision`` of weighted rows that are sorted by descending score, shape (n,) each."""
    if not weights[is_fraud].any():
        return float("nan")
    caught, seen = np.cumsum(weights * is_fraud), np.cumsum(weights)
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    caught, seen = caught[ends], seen[ends]
    gained = np.diff(caught, prepend=0.0)
    with np.errstate(invalid="ignore"):
        steps = np.where(seen > 0, gained * caught / seen, 0.0)
    return float(np.sum(steps) / caught[-1])


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
    is_fraud: Bools, scores: Floats, cards: NDArray[Any], known: Bools, days: NDArray[np.int64], k: int
) -> float:
    """Card Precision@k: mean over days of the share of compromised cards among the day's *k* most suspicious cards.

    A card's score on a day is its highest; it is compromised where any of its transactions that day is fraud. A
    compromised card among the k is not counted again on later days. Equal scores are ranked by the smaller card.

    Args:
        is_fraud: Labels, shape (n,).
        scores: Scores, shape (n,).
        cards: Cards, of any type that sorts, shape (n,).
        known: Where *cards* names a card, shape (n,); other transactions are left out.
        days: Number of the day, shape (n,).
        k: Cards that can be checked in a day; also the denominator.

    Returns:
        In [0, 1]; NaN where no transaction names its card.

    Source:
        Fraud Detection Handbook, ch. 4, "Precision top-k metrics" (with removal of detected cards).
    """
    if not known.any():
        return float("nan")
    names, codes = np.unique(cards[known], return_inverse=True)
    labels, ranked, dates = is_fraud[known], scores[known], days[known]
    detected = np.zeros(len(names), dtype=bool)
    shares = []
    for day in np.unique(dates).tolist():
        today = dates == day
        present, member = np.unique(codes[today], return_inverse=True)
        highest = np.full(len(present), -np.inf)
        compromised = np.zeros(len(present), dtype=bool)
        np.maximum.at(highest, member, ranked[today])
        np.logical_or.at(compromised, member, labels[today])
        candidates = np.flatnonzero(~detected[present])
        top = candidates[np.argsort(-highest[candidates], kind="stable")[:k]]
        caught = present[top[compromised[top]]]
        detected[caught] = True
        shares.append(len(caught) / k)
    return float(np.mean(shares))
