"""Values in windows of one user that hold many entries and overlap: what they share is computed once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from centinela.features.keys import Int64s
from centinela.features.state.aggregates import Floats, WindowValues
from centinela.features.state.range_max import RangeMax

_GROUP = 1024
_SIGN = np.int64(63)
_MAGNITUDE = np.int64(np.iinfo(np.int64).max)


class LongValues(WindowValues):
    """The *values* ``first .. last - 1`` of each window, and its *own* one where *with_own*.

    Args:
        values: int64 or float64, in order of time, shape (m,).
        first: Shape (n,).
        last: Shape (n,).
        own: Of the same type as *values*, shape (n,).
        with_own: Shape (n,).
    """

    def __init__(
        self,
        values: NDArray[np.generic],
        first: Int64s,
        last: Int64s,
        own: NDArray[np.generic],
        with_own: NDArray[np.bool_],
    ) -> None:
        self._values = values
        self._first = first
        self._last = last
        self._own = own
        self._with_own = with_own
        self.whole = values.dtype == np.int64
        self.counts = last - first + with_own

    def greatest(self) -> Floats:
        return self._unranked(self._greatest(_ranked(self._values), _ranked(self._own)))

    def least(self) -> Floats:
        return self._unranked(~self._greatest(~_ranked(self._values), ~_ranked(self._own)))

    def total(self) -> Floats:
        if self.whole:
            return np.where(self.counts > 0, self._sums(_int(self._values), _int(self._own)), np.nan)
        return np.array([np.add.reduceat(window, [0])[0] if len(window) else np.nan for window in self._windows()])

    def squares_around(self, centre: Int64s) -> tuple[Int64s, Int64s]:
        values, own = _int(self._values), _int(self._own)
        sums = self._sums(values, own)
        squares = self._sums(values * values, own * own)  # modulo 2^64, as all that follows: the result fits
        return sums - centre * self.counts, squares - 2 * centre * sums + self.counts * centre * centre

    def squares_apart(self, mean: Floats, windows: NDArray[np.intp]) -> Floats:
        result = np.full(len(windows), np.nan)
        for number, window in enumerate(self._windows(windows)):
            apart = window - mean[number]
            if len(apart):
                result[number] = np.add.reduceat(apart * apart, [0])[0]
        return result

    def distinct(self) -> Floats:
        order = np.argsort(self._values, kind="stable")
        ordered = self._values[order]
        same = ordered[1:] == ordered[:-1]
        before = np.full(len(order), -1, np.int64)
        before[order[1:][same]] = order[:-1][same]
        new = self._with_own & (self._before_own(order, ordered, same) < self._first)
        return (self._firsts(before) + new).astype(np.float64)

    def _greatest(self, ranked: Int64s, own: Int64s) -> Int64s:
        least = np.iinfo(np.int64).min
        result = np.where(self._with_own, own, least)
        some = np.flatnonzero(self._first < self._last)
        if len(some):
            maxima = RangeMax(ranked).of(self._first[some], self._last[some] - 1)
            result[some] = np.maximum(result[some], maxima)
        return result

    def _unranked(self, ranked: Int64s) -> Floats:
        values = ranked.astype(np.float64) if self.whole else _bits(ranked).view(np.float64)
        return np.where(self.counts > 0, values, np.nan)

    def _sums(self, values: Int64s, own: Int64s) -> Int64s:
        through = np.concatenate((np.zeros(1, np.int64), np.cumsum(values)))
        return through[self._last] - through[self._first] + np.where(self._with_own, own, 0)

    def _windows(self, windows: NDArray[np.intp] | None = None) -> Iterator[Floats]:
        """The values of each window as floats, the own one last."""
        for n in (np.arange(len(self.counts)) if windows is None else windows).tolist():
            part = self._values[self._first[n] : self._last[n]]
            yield np.append(part, self._own[n] if self._with_own[n] else part[:0]).astype(np.float64)

    def _firsts(self, before: Int64s) -> Int64s:
        """In each window the values of which no equal one came *before* in it."""
        found = np.zeros(len(self.counts), np.int64)
        queries = np.argsort(self._last, kind="stable")
        while len(queries):
            base = int(self._last[queries[0]])
            group = queries[:_GROUP]
            group = group[self._last[group] <= base + _GROUP]
            queries = queries[len(group) :]
            first, last = self._first[group], self._last[group]
            up_to = np.cumsum(np.bincount(before[:base] + 1, minlength=len(before) + 1))
            tail = np.arange(base, int(last[-1]))
            inside = (tail < last[:, None]) & (before[tail] < first[:, None])
            found[group] = up_to[first] + inside.sum(axis=1) - first  # all those ahead of the window were counted too
        return found

    def _before_own(self, order: NDArray[np.intp], ordered: NDArray[np.generic], same: NDArray[np.bool_]) -> Int64s:
        """Where the last value before each own one is that equals it, -1 if none does."""
        m = len(order)
        if not m:
            return np.full(len(self._own), -1, np.int64)
        code = np.concatenate(([0], np.cumsum(~same)))
        starts = np.concatenate(([0], np.flatnonzero(~same) + 1))
        own_code = np.minimum(np.searchsorted(ordered[starts], self._own), len(starts) - 1)
        keys = code * (m + 1) + order
        at = np.searchsorted(keys, own_code * (m + 1) + self._last) - 1
        place = np.maximum(at, 0)
        equal = (at >= 0) & (code[place] == own_code) & (ordered[place] == self._own)
        return np.where(equal, order[place], -1)


def _int(values: NDArray[np.generic]) -> Int64s:
    return values.view(np.int64)


def _ranked(values: NDArray[np.generic]) -> Int64s:
    """Integers in the order of *values*: themselves, or floats by their bits."""
    return _int(values) if values.dtype == np.int64 else _bits(_int(values))


def _bits(ranked: Int64s) -> Int64s:
    return ranked ^ (ranked >> _SIGN & _MAGNITUDE)
