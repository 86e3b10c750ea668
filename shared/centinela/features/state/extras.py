"""Extra features of users: any aggregation over any window, by one scan over the entries in the windows.

Slower than the kernels of the base features, in proportion to what a window holds, and general.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centinela.features.keys import MISSING_ID, Int64s
from centinela.features.spec import AMOUNT, TERMINAL, Feature
from centinela.features.state.ragged_pool import flat_ranges, search_after

Matrix = NDArray[np.float64]
Floats = NDArray[np.float64]
_SCANNED_AT_ONCE = 1 << 20
_MINOR = 100.0


class ExtraFeatures:
    """Reads *features*, all of users, from blocks of entries with the columns time, amount (minor units) and *stored*.

    Numbers among the stored columns are the bits of float64, terminals those of their hash. A missing number (NaN) is
    passed over, as is a missing terminal. Where a window holds nothing, count and distinct are 0 and all else is NaN.

    Args:
        stored: Names of the columns after time and amount.
    """

    def __init__(self, features: Sequence[Feature], stored: Sequence[str]) -> None:
        self._columns = {AMOUNT: 1, **{name: at for at, name in enumerate(stored, start=2)}}
        self._count = len(features)
        self._by_window: dict[tuple[int, int], list[tuple[int, Feature]]] = {}
        for number, feature in enumerate(features):
            self._by_window.setdefault((feature.delay_ms, feature.window_ms), []).append((number, feature))

    def __len__(self) -> int:
        return self._count

    def of(self, columns: Sequence[Int64s], start: Int64s, end: Int64s, own: Sequence[Int64s]) -> Matrix:
        """The features of transactions that come right after the entries ``start .. end - 1``; shape (n, len(self)).

        Args:
            columns: Of the blocks.
            start: First entry of each transaction's user, shape (n,).
            end: The entry after the last one before the transaction, shape (n,).
            own: The transactions' own columns, each of shape (n,).
        """
        result = np.empty((len(start), self._count))
        for (delay, window), wanted in self._by_window.items():
            times = own[0] - delay
            low = search_after(columns[0], start, end, times - window)
            high = search_after(columns[0], start, end, times) if delay else end
            for part in _parts(high - low):
                held = _Held(columns, low[part], high[part], [column[part] for column in own], bool(not delay))
                for number, feature in wanted:
                    result[part, number] = self._one(feature, held)
        return result

    def _one(self, feature: Feature, held: _Held) -> Floats:
        if feature.aggregation == "seconds_since_last":
            return held.seconds_since_last()
        at = self._columns[feature.column]
        if feature.aggregation == "distinct":
            return held.terminals(at).distinct() if feature.column == TERMINAL else held.numbers(at).distinct()
        if feature.column != AMOUNT:
            own = held.own[at].view(np.float64)
            return held.numbers(at).aggregate(feature.aggregation, own, 1.0)
        return held.amounts(at).aggregate(feature.aggregation, held.own[at].astype(np.float64), _MINOR)


@dataclass(slots=True)
class _Values:
    """The values of one column in the windows of n transactions: the first ``counts[0]`` belong to the first, and so
    on."""

    values: NDArray[np.generic]
    counts: Int64s

    def aggregate(self, aggregation: str, own: Floats, unit: float) -> Floats:
        """*aggregation* of each window, shape (n,), in units of which one holds *unit* of the values'."""
        with np.errstate(all="ignore"):
            match aggregation:
                case "count":
                    return self.counts.astype(np.float64)
                case "max":
                    return self._over(np.maximum) / unit
                case "min":
                    return self._over(np.minimum) / unit
                case "sum":
                    return self._over(np.add) / unit
                case "mean":
                    return self._over(np.add) / (unit * self.counts)
                case "std":
                    return self._std() / unit
                case "ratio_to_mean":
                    total = self._over(np.add)
                    return np.where(total != 0, own / (total / self.counts), np.nan)
                case _:
                    raise NotImplementedError(f"aggregation {aggregation!r} of a user: no code computes it")

    def distinct(self) -> Floats:
        """Number of distinct values in each window, shape (n,)."""
        n = len(self.counts)
        owner = np.repeat(np.arange(n), self.counts)
        order = np.lexsort((self.values, owner))
        values, owner = self.values[order], owner[order]
        differs = np.ones(len(values), bool)
        differs[1:] = (values[1:] != values[:-1]) | (owner[1:] != owner[:-1])
        return np.bincount(owner[differs], minlength=n).astype(np.float64)

    def _std(self) -> Floats:
        """The sample's standard deviation in each window; NaN for fewer than two values."""
        apart: Floats = np.asarray(self.values, np.float64) - np.repeat(self._over(np.add) / self.counts, self.counts)
        squares = _Values(apart * apart, self.counts)._over(np.add)
        return np.where(self.counts > 1, np.sqrt(squares / (self.counts - 1)), np.nan)

    def _over(self, ufunc: np.ufunc) -> Floats:
        result = np.full(len(self.counts), np.nan)
        some = self.counts > 0
        if some.any():
            result[some] = ufunc.reduceat(self.values, (np.cumsum(self.counts) - self.counts)[some])
        return result


class _Held:
    """The entries in the windows of n transactions, in order of time, then of the log; the transaction itself is the
    last."""

    def __init__(self, columns: Sequence[Int64s], low: Int64s, high: Int64s, own: list[Int64s], with_own: bool) -> None:
        self.own = own
        self._columns, self._low, self._high, self._with_own = columns, low, high, with_own
        self._counts = high - low + with_own
        self._flat = np.minimum(flat_ranges(low, self._counts), len(columns[0]) - 1)
        self._last = np.cumsum(self._counts) - 1
        self._known: dict[tuple[int, str], _Values] = {}

    def amounts(self, at: int) -> _Values:
        """Column *at* of whole numbers, none missing."""
        return self._values(at, "amounts")

    def numbers(self, at: int) -> _Values:
        """Column *at* of float64, without the missing."""
        return self._values(at, "numbers")

    def terminals(self, at: int) -> _Values:
        """Column *at* of hashes, without the missing."""
        return self._values(at, "terminals")

    def seconds_since_last(self) -> Floats:
        """Seconds since the latest entry other than the transaction itself, NaN if there is none; shape (n,)."""
        last = self._columns[0][np.maximum(self._high - 1, 0)]
        return np.where(self._high > self._low, (self.own[0] - last) / 1000.0, np.nan)

    def _values(self, at: int, kind: str) -> _Values:
        if (at, kind) not in self._known:
            self._known[at, kind] = self._read(at, kind)
        return self._known[at, kind]

    def _read(self, at: int, kind: str) -> _Values:
        raw = self._columns[at][self._flat]
        if self._with_own:
            raw[self._last] = self.own[at]
        if kind == "amounts":
            return _Values(raw.astype(np.float64), self._counts)
        values = raw if kind == "terminals" else raw.view(np.float64) + 0.0
        there = raw != MISSING_ID if kind == "terminals" else ~np.isnan(values)
        if there.all():
            return _Values(values, self._counts)
        owner = np.repeat(np.arange(len(self._counts)), self._counts)
        return _Values(values[there], np.bincount(owner[there], minlength=len(self._counts)))


def _parts(sizes: Int64s) -> Iterator[slice]:
    """Cut transactions into parts whose windows together have about a million entries."""
    ends = np.cumsum(sizes + 1)
    first = 0
    while first < len(sizes):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + _SCANNED_AT_ONCE, side="right")))
        yield slice(first, last)
        first = last
