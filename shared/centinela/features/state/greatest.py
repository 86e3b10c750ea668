"""The greatest amount of each user's longest window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from centinela.features.keys import Int64s
from centinela.features.spec import LONGEST_MS
from centinela.features.state.busy_rows import LONG_AGO
from centinela.features.state.ragged_pool import Inserted, RaggedPool, flat_ranges, search_after

_SCANNED_AT_ONCE = 1 << 20
_LONG = 4096
"""A window of more entries is looked through by itself: that takes no copy of it."""


class GreatestAmounts:
    """Of each row of *pool* the greatest amount of the longest window that ends with its newest entry, and the latest
    time at which it occurred.

    While entries come in order of time, that is enough to answer; else the window is looked through.

    Args:
        time: The column of *pool* with the times.
        amount: The column with the amounts.
    """

    def __init__(self, pool: RaggedPool, time: int, amount: int) -> None:
        self._pool = pool
        self._time_column = time
        self._amount_column = amount
        self._value = np.zeros(0, np.int64)
        self._time = np.zeros(0, np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self._value.nbytes + self._time.nbytes

    @property
    def _times(self) -> Int64s:
        return self._pool.columns[self._time_column]

    @property
    def _amounts(self) -> Int64s:
        return self._pool.columns[self._amount_column]

    def arrays(self, rows: int) -> dict[str, NDArray[np.generic]]:
        """What ``load`` needs of the first *rows*."""
        return {"max_value": self._value[:rows].copy(), "max_time": self._time[:rows].copy()}

    def load(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Fill this empty object."""
        self._value, self._time = arrays["max_value"].astype(np.int64), arrays["max_time"].astype(np.int64)

    def add_rows(self, rows: int) -> None:
        """There are *rows* now."""
        if (missing := rows - len(self._time)) > 0:
            spare = np.zeros(max(missing, len(self._time)), np.int64)
            self._value = np.concatenate((self._value, spare))
            self._time = np.concatenate((self._time, spare + LONG_AGO))

    def of_newest(self, row: int) -> tuple[int, int]:
        """The greatest amount of the window of *row*'s newest entry, and its latest time."""
        return int(self._value[row]), int(self._time[row])

    def refresh(self, row: int) -> None:
        """Look through the window of *row*'s newest entry."""
        end = self._pool.end[[row]]
        newest = self._times[end - 1]
        value, when = self._scan(self._pool.start[[row]], end - 1, newest, self._amounts[end - 1])
        self._value[row], self._time[row] = value[0], when[0]

    def apply(self, put: Inserted, start: Int64s, newest: Int64s, times: Int64s, amounts: Int64s) -> Int64s:
        """The greatest amount of each entry's longest window, of entries that ascend in time within a row.

        Args:
            put: Their insertion.
            start: The first entry of each one's row, shape (n,).
            newest: The newest time of each one's row before, shape (n,).
        """
        result = np.empty(len(times), np.int64)
        newest = newest[put.firsts]
        for rank in range(int(put.counts.max())):
            among = np.flatnonzero(put.counts > rank)
            at, rows = put.firsts[among] + rank, put.rows[among]
            t, own = times[at], amounts[at]
            in_order = t >= newest[among]
            value, when = self.of(rows, start[at], put.positions[at], t, own, in_order)
            result[at] = value
            known, since = self._value[rows], self._time[rows]
            matters = ~in_order & (t > newest[among] - LONGEST_MS) & (own >= known)
            self._value[rows] = np.where(in_order, value, np.where(matters, own, known))
            self._time[rows] = np.where(
                in_order, when, np.where(matters & (own > known), t, np.where(matters, np.maximum(since, t), since))
            )
            newest[among] = np.maximum(newest[among], t)
        return result

    def of(
        self, rows: Int64s, start: Int64s, position: Int64s, times: Int64s, own: Int64s, in_order: NDArray[np.bool_]
    ) -> tuple[Int64s, Int64s]:
        """The greatest amount of ``(t - 30 d, t]`` with the latest time it occurred, looking through entries only where
        needed."""
        known, since = self._value[rows], self._time[rows]
        takes_own = in_order & (own >= known)
        value, when = np.where(takes_own, own, known), np.where(takes_own, times, since)
        scan = np.flatnonzero(~takes_own & ~(in_order & (since > times - LONGEST_MS)))
        if len(scan):
            value[scan], when[scan] = self._scan(start[scan], position[scan], times[scan], own[scan])
        return value, when

    def _scan(self, start: Int64s, position: Int64s, times: Int64s, own: Int64s) -> tuple[Int64s, Int64s]:
        low = search_after(self._times, start, position, times - LONGEST_MS)
        value, when = own.copy(), times.copy()
        sizes = position - low
        for n in np.flatnonzero(sizes > _LONG).tolist():
            backwards = self._amounts[low[n] : position[n]][::-1]
            at = int(np.argmax(backwards))
            if backwards[at] > own[n]:
                value[n], when[n] = backwards[at], self._times[position[n] - 1 - at]
        some = np.flatnonzero((sizes > 0) & (sizes <= _LONG))
        for part in np.array_split(some, 1 + int(sizes[some].sum()) // _SCANNED_AT_ONCE):
            if len(part):
                value[part], when[part] = self._scan_together(low[part], sizes[part], own[part], times[part])
        return value, when

    def _scan_together(self, low: Int64s, sizes: Int64s, own: Int64s, times: Int64s) -> tuple[Int64s, Int64s]:
        flat = flat_ranges(low, sizes)
        amounts = self._amounts[flat]
        bounds = np.cumsum(sizes) - sizes
        greatest = np.maximum.reduceat(amounts, bounds)
        at = np.maximum.reduceat(np.where(amounts == np.repeat(greatest, sizes), flat, -1), bounds)
        higher = greatest > own
        return np.where(higher, greatest, own), np.where(higher, self._times[at], times)
