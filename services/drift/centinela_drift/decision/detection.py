"""Drift statistics on binned counts against a frozen reference.

A shift counts if it is large (population stability index over its limit) and not due to chance (a chi-square limit).
Statistics of data-quality faults begin with ``data_quality.``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr
from scipy.stats import binomtest, chi2

from centinela.events import Finding
from centinela_drift.decision.windows import Bucket

DATA_QUALITY = "data_quality."
SCORE_MIN_SHARE = 0.01
STUCK_SHARE = 0.99
STUCK_USUAL_SHARE = 0.25
STUCK_LEAST_BINS = 4
Counts = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Reference:
    """A model's frozen reference.

    ``counts``: shape (features, bins + 1), missing values last; ``scores``: shape (50,).
    """

    version: str
    features: tuple[str, ...]
    counts: NDArray[np.int64]
    scores: NDArray[np.int64]
    alert_rate: float | None
    average_precision: float | None


@dataclass(frozen=True, slots=True)
class Limits:
    """The value from which each statistic counts; see the settings of the same names."""

    psi: float = 0.1
    significance: float = 0.001
    missing: float = 0.05
    alert_rate_ratio: float = 2.0


def psi(reference: Counts, recent: Counts) -> float:
    """Population stability index of two histograms over the same bins; an empty bin counts as half a transaction.

    Bins that are empty in both are left out; 0.0 if either histogram is empty.
    """
    used = (reference + recent) > 0
    if not reference.sum() or not recent.sum():
        return 0.0
    p = np.maximum(reference[used], 0.5) / reference.sum()
    q = np.maximum(recent[used], 0.5) / recent.sum()
    return float(np.sum((q - p) * np.log(q / p)))


def psi_chance_limit(reference: Counts, recent: Counts, significance: float) -> float:
    """The index that two samples of one distribution exceed with probability *significance*.

    It is (1/n + 1/m) chi-square(bins - 1).

    Source:
        Yurdakul, Naranjo: Statistical properties of the population stability index (2020).
    """
    bins = int(((reference + recent) > 0).sum())
    if bins < 2 or not reference.sum() or not recent.sum():
        return float("inf")
    return float((1 / reference.sum() + 1 / recent.sum()) * chi2.isf(significance, bins - 1))


def jensen_shannon(reference: Counts, recent: Counts) -> float:
    """Jensen-Shannon distance (base 2) of two histograms, in [0, 1]; 0.0 where either is empty."""
    if not reference.sum() or not recent.sum():
        return 0.0
    p, q = reference / reference.sum(), recent / recent.sum()
    middle = (p + q) / 2
    divergence = float(rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / 2
    # Rounding can make it negative for nearly equal histograms: scipy's jensenshannon then returns NaN.
    return float(np.sqrt(max(0.0, divergence) / np.log(2)))


def merge_sparse(reference: Counts, recent: Counts, min_share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Join neighbouring bins, from the highest down, until each has *min_share* of the reference.

    Most equal-width bins of a skewed score are nearly empty; joined, they separate the tail from the rest.
    """
    least = min_share * reference.sum()
    groups: list[tuple[int, int]] = []
    sum_reference = 0
    sum_recent = 0
    for expected, observed in zip(reference[::-1].tolist(), recent[::-1].tolist(), strict=True):
        sum_reference += expected
        sum_recent += observed
        if sum_reference >= least and sum_reference > 0:
            groups.append((sum_reference, sum_recent))
            sum_reference = 0
            sum_recent = 0
    if groups and (sum_reference or sum_recent):
        groups[-1] = (groups[-1][0] + sum_reference, groups[-1][1] + sum_recent)
    elif not groups:
        groups = [(sum_reference, sum_recent)]
    merged = np.array(groups[::-1], dtype=np.int64)
    return merged[:, 0], merged[:, 1]


def wilson_interval(hits: int, trials: int, confidence: float) -> tuple[float, float]:
    """Wilson score interval of a proportion; (0.0, 1.0) without trials."""
    if not trials:
        return 0.0, 1.0
    interval = binomtest(hits, trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def feature_drift(reference: Reference, recent: Bucket, limits: Limits) -> tuple[Finding, ...]:
    """One ``psi`` per feature over the values present; missing values belong to data quality."""
    observed = _by_feature(reference, recent)
    if observed is None:
        return ()
    chance = limits.significance / max(1, len(reference.features))
    return tuple(
        _shift("psi", reference.counts[i, :-1], observed[i, :-1], limits.psi, chance, name)
        for i, name in enumerate(reference.features)
    )


def score_drift(reference: Reference, recent: Bucket, limits: Limits) -> tuple[Finding, ...]:
    """``score_psi`` (which decides) and ``score_js`` (for information only) of the score histograms."""
    expected, observed = merge_sparse(reference.scores, recent.scores, SCORE_MIN_SHARE)
    distance = jensen_shannon(expected, observed)
    return (
        _shift("score_psi", expected, observed, limits.psi, limits.significance, None),
        Finding(statistic="score_js", value=distance, limit=1.0, breached=False),
    )


def alert_rate_shift(reference: Reference, recent: Bucket, limits: Limits) -> Finding | None:
    """``alert_rate_ratio``: recent over reference. It counts if the whole interval of the recent rate lies beyond
    the limit.

    None if the reference has no alert rate above zero.
    """
    if not reference.alert_rate or not recent.count:
        return None
    low, high = wilson_interval(recent.alerts, recent.count, 1 - limits.significance)
    above, below = limits.alert_rate_ratio * reference.alert_rate, reference.alert_rate / limits.alert_rate_ratio
    ratio = recent.alert_rate / reference.alert_rate
    beyond = ratio >= limits.alert_rate_ratio or ratio <= 1 / limits.alert_rate_ratio
    significant = low > above or high < below
    return Finding(
        statistic="alert_rate_ratio",
        value=ratio,
        limit=limits.alert_rate_ratio,
        breached=beyond and significant,
        significant=significant,
    )


def data_quality(reference: Reference, recent: Bucket, limits: Limits) -> tuple[Finding, ...]:
    """Faults of the feed: ``data_quality.missing`` (a feature is missing more often than it was, beyond chance) and
    ``data_quality.stuck`` (nearly all values in one bin where the reference had them spread over several; a flag may
    well be constant for a day). Values that gather in the reference's topmost bin have grown, which is drift.
    Only faults are returned."""
    observed = _by_feature(reference, recent)
    if observed is None:
        return ()
    faults = []
    confidence = 1 - limits.significance / max(1, len(reference.features))
    for i, name in enumerate(reference.features):
        before, after = reference.counts[i], observed[i]
        usual = before[-1] / before.sum() if before.sum() else 0.0
        rise = after[-1] / after.sum() - usual
        if rise >= limits.missing and wilson_interval(int(after[-1]), int(after.sum()), confidence)[0] > usual:
            faults.append(
                Finding(
                    statistic=DATA_QUALITY + "missing",
                    value=float(rise),
                    limit=limits.missing,
                    breached=True,
                    feature=name,
                    significant=True,
                )
            )
        present, expected = after[:-1], before[:-1]
        if present.sum() and expected.sum():
            fullest = int(present.argmax())
            share, usual_share = present[fullest] / present.sum(), expected[fullest] / expected.sum()
            spread = usual_share <= STUCK_USUAL_SHARE and (expected > 0).sum() >= STUCK_LEAST_BINS
            if share >= STUCK_SHARE and spread and fullest < np.flatnonzero(expected)[-1]:
                faults.append(
                    Finding(
                        statistic=DATA_QUALITY + "stuck",
                        value=float(share),
                        limit=STUCK_SHARE,
                        breached=True,
                        feature=name,
                        significant=True,
                    )
                )
    return tuple(faults)


def worst(findings: Sequence[Finding]) -> Finding | None:
    """The breached finding furthest over its limit, or None."""
    return max((f for f in findings if f.breached), key=lambda f: f.value / f.limit, default=None)


def _shift(
    statistic: str, reference: Counts, recent: Counts, limit: float, significance: float, feature: str | None
) -> Finding:
    value = psi(reference, recent)
    significant = value > psi_chance_limit(reference, recent, significance)
    return Finding(
        statistic=statistic,
        value=value,
        limit=limit,
        breached=value >= limit and significant,
        feature=feature,
        significant=significant,
    )


def _by_feature(reference: Reference, recent: Bucket) -> NDArray[np.int64] | None:
    """Recent counts in the reference's shape; None where no pane has histograms with its edges."""
    if not recent.described or len(recent.histograms) != reference.counts.size:
        return None
    return recent.histograms.reshape(reference.counts.shape)
