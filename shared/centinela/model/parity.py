"""On which rows two forms of a model are compared, and what counts as equal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centinela.model.bundle import Attempt, Backend

TOLERANCE = 1e-5
LEAST_ROWS = 10_000
MOST_ROWS = 40_000
MISSING_ROWS = 2_000
GOLDEN_ROWS = 128
LARGE = 1e9
JITTER = 1e-3
SEED = 20_240_501


@dataclass(frozen=True)
class ParityRows:
    """Rows to compare on, shape (n, features): ordinary ones first, then ``missing`` with holes, then ``edge`` extreme
    ones."""

    matrix: NDArray[np.float64]
    missing: int
    edge: int


def parity_rows(train: NDArray[np.float64], recent: NDArray[np.float64], edges: NDArray[np.float64]) -> ParityRows:
    """The newest rows, at least ``LEAST_ROWS``; rows with holes; rows at the edges of each feature. Deterministic.

    Where *recent* and *train* together are fewer, rows are added whose columns are drawn independently and moved a
    little, for values that no threshold of the model was made from.

    Args:
        train: Shape (n, features).
        recent: Shape (m, features), m >= 1, newest last.
        edges: Reference edges, shape (features, bins - 1).
    """
    random = np.random.default_rng(SEED)
    ordinary = recent[-MOST_ROWS:]
    if len(ordinary) < LEAST_ROWS:
        ordinary = np.concatenate([train[len(train) - min(len(train), LEAST_ROWS - len(ordinary)) :], ordinary])
    if len(ordinary) < LEAST_ROWS:
        more = _shuffled(ordinary, LEAST_ROWS - len(ordinary), random)
        ordinary = np.concatenate([more * random.uniform(1 - JITTER, 1 + JITTER, size=more.shape), ordinary])
    holes = _shuffled(ordinary, MISSING_ROWS, random)
    holes[random.random(holes.shape) < random.random((len(holes), 1))] = np.nan
    extreme = _edge_rows(ordinary, edges)
    return ParityRows(np.ascontiguousarray(np.concatenate([ordinary, holes, extreme])), len(holes), len(extreme))


def compare(
    backend: Backend, got: NDArray[np.float64], expected: NDArray[np.float64], limits: tuple[float, ...]
) -> Attempt:
    """Whether *got* may replace *expected*: within ``TOLERANCE`` everywhere and equal decisions at each of
    *limits*."""
    if got.shape != expected.shape:
        return Attempt(backend=backend, passed=False, reason=f"{got.shape} scores for {expected.shape} rows")
    error = float(np.max(np.abs(got - expected)))
    flips = sum(int(np.sum((got >= limit) != (expected >= limit))) for limit in limits)
    if not np.isfinite(error):
        return Attempt(backend=backend, passed=False, flips=flips, reason="scores are not finite")
    passed = error <= TOLERANCE and not flips
    reason = "" if passed else f"error {error:.3g} (at most {TOLERANCE:.3g}), {flips} decisions differ"
    return Attempt(backend=backend, passed=passed, max_error=error, flips=flips, reason=reason)


def settle_threshold(scores: NDArray[np.float64], threshold: float) -> float:
    """The middle of the gap between the scores around *threshold*: the same decisions (``score >=
    threshold``), safe from rounding.

    *threshold* itself where no score lies on one of its sides.
    """
    below, above = scores[scores < threshold], scores[scores >= threshold]
    if not len(below) or not len(above):
        return threshold
    low, high = float(below.max()), float(above.min())
    middle = (low + high) / 2
    return middle if low < middle <= high else threshold


def golden_rows(expected: NDArray[np.float64], limits: tuple[float, ...], rows: ParityRows) -> NDArray[np.intp]:
    """Indices of rows for the golden set: spread over the scores, near each limit, with holes, extreme.

    None so near a limit that another processor's rounding could change its decision.
    """
    part = GOLDEN_ROWS // 4
    ordinary = len(expected) - rows.missing - rows.edge
    by_score = np.argsort(expected[:ordinary], kind="stable")
    spread = by_score[np.linspace(0, ordinary - 1, part).astype(np.intp)]
    distance = np.min([np.abs(expected - limit) for limit in limits], axis=0)
    clear: NDArray[np.bool_] = distance > 10 * TOLERANCE
    near = np.argsort(np.where(clear, distance, np.inf)[:ordinary], kind="stable")[:part]
    holes = ordinary + np.arange(min(part, rows.missing))
    extreme = ordinary + rows.missing + np.linspace(0, rows.edge - 1, min(part, rows.edge)).astype(np.intp)
    chosen = np.unique(np.concatenate([spread, near, holes, extreme]))
    return np.asarray(chosen[clear[chosen]], dtype=np.intp)


def _shuffled(matrix: NDArray[np.float64], count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """*count* rows whose columns are drawn independently from *matrix*."""
    picks = random.integers(0, len(matrix), size=(count, matrix.shape[1]))
    return np.take_along_axis(matrix, picks, axis=0)


def _edge_rows(ordinary: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """A typical row with one feature at a time set to an extreme or border value, and rows of one value throughout."""
    filled = np.where(np.isfinite(ordinary), ordinary, 0.0)
    typical = np.median(filled, axis=0)
    lowest, highest = filled.min(axis=0), filled.max(axis=0)
    extreme: list[NDArray[np.float64]] = [np.full_like(typical, value) for value in (np.nan, 0.0, LARGE, -LARGE)] + [
        lowest,
        highest,
    ]
    for at in range(len(typical)):
        border = edges[at][np.isfinite(edges[at])]
        values = np.concatenate([[np.nan, 0.0, -1.0, LARGE, -LARGE, lowest[at], highest[at]], border])
        rows = np.tile(typical, (len(values), 1))
        rows[:, at] = values
        extreme.extend(rows)
    return np.array(extreme)
