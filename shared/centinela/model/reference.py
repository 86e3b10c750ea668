"""Frozen reference histograms: which bin a value falls into, fixed when the model was made."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 10
"""Bins of a feature; a histogram row has one more for missing values."""

SCORE_BINS = 50
"""Equal bins of the score over [0, 1]."""


class Segment(NamedTuple):
    """Distinct values ``[first, end)`` that share a bin, and their rows."""

    first: int
    end: int
    rows: int


def quantile_edges(column: NDArray[np.float64], bins: int = BINS) -> NDArray[np.float64]:
    """Inner edges of about equally filled bins, made for :func:`histogram`.

    A value that holds a bin's share or more of the rows (zero amounts, flags, a constant) gets a bin of its own, closed
    on both sides while bins are left, so that a shift away from it shows. Fewer edges than asked for come out where
    the column has few distinct values; then the tail is padded with ``inf``, whose bins stay empty.

    Args:
        column: Reference values, shape (n,); what is not finite is skipped.
        bins: Number of bins, >= 3.

    Returns:
        Ascending edges, shape (bins - 1,), padded with ``inf``. Bin *i* is ``edges[i - 1] <= x < edges[i]``.

    Raises:
        ValueError: *bins* < 3.
    """
    if bins < 3:
        raise ValueError(f"bins is {bins}; at least 3")
    edges = np.full(bins - 1, np.inf)
    values, counts = np.unique(column[np.isfinite(column)], return_counts=True)
    if len(values):
        segments = _merge(_segments(counts, bins), bins)
        inner = [_border(values, counts, left, right, bins) for left, right in pairwise(segments)]
        inner = _close_ends(inner, values, counts, segments, bins)
        edges[: len(inner)] = inner
    return edges


def reference_edges(matrix: NDArray[np.float64], bins: int = BINS) -> NDArray[np.float64]:
    """:func:`quantile_edges` of each column of *matrix*, shape (n, features) to (features, bins - 1)."""
    return np.array([quantile_edges(matrix[:, at], bins) for at in range(matrix.shape[1])]).reshape(-1, bins - 1)


def histogram(matrix: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Rows per bin and feature. Histograms of disjoint rows add up.

    Args:
        matrix: Values in the order of the model's features, shape (n, features).
        edges: Shape (features, bins - 1), from :func:`reference_edges`.

    Returns:
        Counts, shape (features, bins + 1); the last bin counts missing values. Each row sums to n.

    Raises:
        ValueError: *matrix* and *edges* have different numbers of features.
    """
    features, inner = edges.shape
    if matrix.ndim != 2 or matrix.shape[1] != features:
        raise ValueError(f"matrix has shape {matrix.shape}, the edges are for {features} features")
    width = inner + 2
    bins = np.empty(matrix.shape, dtype=np.intp)
    for at in range(features):
        bins[:, at] = np.searchsorted(edges[at], matrix[:, at], side="right")
    bins[np.isnan(matrix)] = width - 1
    flat = np.bincount((bins + np.arange(features) * width).ravel(), minlength=features * width)
    return flat.reshape(features, width).astype(np.uint32)


def score_histogram(scores: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Scores per equal bin over [0, 1], shape (n,) to (SCORE_BINS,); 1.0 belongs to the last bin, NaN to none."""
    known = scores[~np.isnan(scores)]
    bins = np.clip((known * SCORE_BINS).astype(np.intp), 0, SCORE_BINS - 1)
    return np.bincount(bins, minlength=SCORE_BINS).astype(np.uint32)


def _segments(counts: NDArray[np.intp], bins: int) -> list[Segment]:
    """Runs of distinct values: heavy values alone, what is between them cut into even shares."""
    share = counts.sum() / bins
    before = np.concatenate([[0], np.cumsum(counts)])
    segments: list[Segment] = []
    start = 0
    for heavy in [*np.flatnonzero(counts >= share).tolist(), len(counts)]:
        if start < heavy:
            rows = before[heavy] - before[start]
            pieces = max(1, round(float(rows / share)))
            cuts = np.searchsorted(before, before[start] + rows * np.arange(1, pieces) / pieces)
            bounds = np.unique(np.concatenate([[start], cuts, [heavy]])).tolist()
            segments += [Segment(a, b, int(before[b] - before[a])) for a, b in pairwise(bounds)]
        if heavy < len(counts):
            segments.append(Segment(heavy, heavy + 1, int(counts[heavy])))
        start = heavy + 1
    return segments


def _merge(segments: list[Segment], bins: int) -> list[Segment]:
    """At most *bins* segments: the lightest pair of neighbours is joined until they fit."""
    segments = list(segments)
    while len(segments) > bins:
        at = min(range(len(segments) - 1), key=lambda i: segments[i].rows + segments[i + 1].rows)
        left, right = segments[at], segments[at + 1]
        segments[at : at + 2] = [Segment(left.first, right.end, left.rows + right.rows)]
    return segments


def _heavy(counts: NDArray[np.intp], segment: Segment, bins: int) -> bool:
    return segment.end - segment.first == 1 and bool(segment.rows >= counts.sum() / bins)


def _border(values: NDArray[np.float64], counts: NDArray[np.intp], left: Segment, right: Segment, bins: int) -> float:
    if _heavy(counts, left, bins):
        return _just_above(values[left.first])
    return float(values[right.first])


def _close_ends(
    inner: list[float], values: NDArray[np.float64], counts: NDArray[np.intp], segments: list[Segment], bins: int
) -> list[float]:
    """Where bins are left, a heavy lowest (highest) value is parted from what may come below (above) it."""
    if len(inner) < bins - 1 and _heavy(counts, segments[-1], bins):
        inner = [*inner, _just_above(values[-1])]
    if len(inner) < bins - 1 and _heavy(counts, segments[0], bins):
        inner = [float(values[0]), *inner]
    return inner


def _just_above(value: float) -> float:
    """The next number, but no denormal one: a process that flushes those to zero would put zeros elsewhere."""
    return float(max(np.nextafter(value, np.inf), value + np.finfo(np.float64).tiny))
