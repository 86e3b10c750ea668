"""Extra features of users: any aggregation over any window, by one scan over the entries in the windows.

Slower than the kernels of the base features, and general. Where many transactions of one user have long windows, what
these share is computed once; only sums of attributes, which are not whole numbers, still look at each entry.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from centinela.features.keys import MISSING_ID, Int64s
from centinela.features.spec import AMOUNT, TERMINAL, Feature
from centinela.features.state.aggregates import Floats, WindowValues
from centinela.features.state.long_windows import LongValues
from centinela.features.state.ragged_pool import flat_ranges, search_after

Matrix = NDArray[np.float64]
_SCANNED_AT_ONCE = 1 << 20
_LONG, _MANY, _OVERLAP = 64, 1 << 15, 16
"""Windows of one user with more entries than the first are read together where they hold more than the second, and
this many times the entries of the longest."""
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
            others = np.ones(len(low), bool)
            for user in _users_of_long_windows(start, high - low):
                others[user] = False
                long = _Long(columns, low[user], high[user], [column[user] for column in own], with_own=not delay)
                for number, feature in wanted:
                    result[user, number] = self._one(feature, long)
            for part in _parts(np.flatnonzero(others), high - low):
                held = _Held(columns, low[part], high[part], [column[part] for column in own], with_own=not delay)
                for number, feature in wanted:
                    result[part, number] = self._one(feature, held)
        return result

    def _one(self, feature: Feature, held: _Windows) -> Floats:
        if feature.aggregation == "seconds_since_last":
            return held.seconds_since_last()
        at = self._columns[feature.column]
        if feature.aggregation == "distinct":
            return held.terminals(at).distinct() if feature.column == TERMINAL else held.numbers(at).distinct()
        if feature.column != AMOUNT:
            own = held.own[at].view(np.float64)
            return held.numbers(at).aggregate(feature.aggregation, own, 1.0)
        return held.amounts(at).aggregate(feature.aggregation, held.own[at].astype(np.float64), _MINOR)


class _Values(WindowValues):
    """The first ``counts[0]`` of *values* belong to the first of n windows, and so on."""

    def __init__(self, values: NDArray[np.generic], counts: Int64s) -> None:
        self._values = values
        self.counts = counts
        self.whole = values.dtype == np.int64

    def greatest(self) -> Floats:
        return self._over(np.maximum, self._values)

    def least(self) -> Floats:
        return self._over(np.minimum, self._values)

    def total(self) -> Floats:
        return self._over(np.add, self._values)

    def squares_around(self, centre: Int64s) -> tuple[Int64s, Int64s]:
        apart = self._values.view(np.int64) - np.repeat(centre, self.counts)
        sums, squares = np.zeros(len(centre), np.int64), np.zeros(len(centre), np.int64)
        some = self.counts > 0
        if some.any():
            starts = (np.cumsum(self.counts) - self.counts)[some]
            sums[some], squares[some] = np.add.reduceat(apart, starts), np.add.reduceat(apart * apart, starts)
        return sums, squares

    def squares_apart(self, mean: Floats, windows: NDArray[np.intp]) -> Floats:
        means = np.zeros(len(self.counts))
        means[windows] = mean
        apart = self._values.astype(np.float64) - np.repeat(means, self.counts)
        return self._over(np.add, apart * apart)[windows]

    def distinct(self) -> Floats:
        n = len(self.counts)
        owner = np.repeat(np.arange(n), self.counts)
        order = np.lexsort((self._values, owner))
        values, owner = self._values[order], owner[order]
        differs = np.ones(len(values), bool)
        differs[1:] = (values[1:] != values[:-1]) | (owner[1:] != owner[:-1])
        return np.bincount(owner[differs], minlength=n).astype(np.float64)

    def _over(self, ufunc: np.ufunc, values: NDArray[np.generic]) -> Floats:
        result = np.full(len(self.counts), np.nan)
        some = self.counts > 0
        if some.any():
            result[some] = ufunc.reduceat(values, (np.cumsum(self.counts) - self.counts)[some])
        return result


class _Windows(ABC):
    """The entries in the windows of n transactions, in order of time, then of the log; the transaction itself is the
    last, where it counts."""

    def __init__(
        self, columns: Sequence[Int64s], low: Int64s, high: Int64s, own: list[Int64s], *, with_own: bool
    ) -> None:
        self.own = own
        self._columns = columns
        self._low = low
        self._high = high
        self._with_own = with_own
        self._known: dict[tuple[int, str], WindowValues] = {}

    def amounts(self, at: int) -> WindowValues:
        """Column *at* of whole numbers, none missing."""
        return self._values(at, "amounts")

    def numbers(self, at: int) -> WindowValues:
        """Column *at* of float64, without the missing."""
        return self._values(at, "numbers")

    def terminals(self, at: int) -> WindowValues:
        """Column *at* of hashes, without the missing."""
        return self._values(at, "terminals")

    def seconds_since_last(self) -> Floats:
        """Seconds since the latest entry other than the transaction itself, NaN if there is none; shape (n,)."""
        last = self._columns[0][np.maximum(self._high - 1, 0)]
        return np.where(self._high > self._low, (self.own[0] - last) / 1000.0, np.nan)

    def _values(self, at: int, kind: str) -> WindowValues:
        if (at, kind) not in self._known:
            self._known[at, kind] = self._read(at, kind)
        return self._known[at, kind]

    @abstractmethod
    def _read(self, at: int, kind: str) -> WindowValues:
        """The values of column *at*."""


class _Held(_Windows):
    """Copies the entries of every window."""

    def __init__(
        self, columns: Sequence[Int64s], low: Int64s, high: Int64s, own: list[Int64s], *, with_own: bool
    ) -> None:
        super().__init__(columns, low, high, own, with_own=with_own)
        self._counts = high - low + with_own
        self._flat = np.minimum(flat_ranges(low, self._counts), len(columns[0]) - 1)
        self._last = np.cumsum(self._counts) - 1

    def _read(self, at: int, kind: str) -> WindowValues:
        raw = self._columns[at][self._flat]
        if self._with_own:
            raw[self._last] = self.own[at]
        values, there = _decoded(raw, kind)
        if there.all():
            return _Values(values, self._counts)
        owner = np.repeat(np.arange(len(self._counts)), self._counts)
        return _Values(values[there], np.bincount(owner[there], minlength=len(self._counts)))


class _Long(_Windows):
    """Windows of one user, which overlap: an entry is read once for all of them."""

    def _read(self, at: int, kind: str) -> WindowValues:
        base = int(self._low.min())
        values, there = _decoded(self._columns[at][base : int(self._high.max())], kind)
        own, own_there = _decoded(self.own[at], kind)
        first, last = self._low - base, self._high - base
        if not there.all():
            place = np.concatenate(([0], np.cumsum(there))).astype(np.int64)
            return LongValues(values[there], place[first], place[last], own, own_there & self._with_own)
        return LongValues(values, first, last, own, own_there & self._with_own)


def _decoded(raw: Int64s, kind: str) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """The values of *raw*, and which are not missing."""
    if kind == "amounts":
        return raw, np.ones(len(raw), bool)
    if kind == "terminals":
        return raw, raw != MISSING_ID
    values = raw.view(np.float64) + 0.0
    return values, ~np.isnan(values)


def _users_of_long_windows(start: Int64s, sizes: Int64s) -> Iterator[NDArray[np.intp]]:
    """The transactions of each user whose windows together hold so many entries that most are in several.

    Args:
        start: The first entry of each transaction's user, shape (n,).
        sizes: Entries in each window, shape (n,).
    """
    long = np.flatnonzero(sizes > _LONG)
    if not len(long):
        return
    users, which = np.unique(start[long], return_inverse=True)
    together = np.bincount(which, sizes[long])
    longest = np.zeros(len(users), np.int64)
    np.maximum.at(longest, which, sizes[long])
    for user in np.flatnonzero(together > np.maximum(_MANY, _OVERLAP * longest)).tolist():
        yield long[which == user]


def _parts(windows: NDArray[np.intp], sizes: Int64s) -> Iterator[NDArray[np.intp]]:
    """Cut *windows*, by their numbers, into parts that together have about a million entries."""
    ends = np.cumsum(sizes[windows] + 1)
    first = 0
    while first < len(windows):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + _SCANNED_AT_ONCE, side="right")))
        yield windows[first:last]
        first = last
