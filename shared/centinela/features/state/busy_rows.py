"""Users with many transactions in one batch: which these are, and their base windows, in whatever order they came.

The cost of a transaction grows with the logarithms of the batch and of what is stored, not with what its windows hold.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from centinela.features.keys import Int64s
from centinela.features.spec import LONGEST_MS
from centinela.features.state.base_windows import WINDOWS_MS
from centinela.features.state.ragged_pool import search_after
from centinela.features.state.range_max import RangeMax

_REACHES_MS = np.array(list(dict.fromkeys((*WINDOWS_MS.tolist(), LONGEST_MS))), np.int64)
_LONGEST_AT = _REACHES_MS.tolist().index(LONGEST_MS)
LONG_AGO = -(1 << 62)
_ROW_COST = 8
"""What one busy row costs by itself, in steps that take one transaction of every other row."""


def busy_rows(rows: Int64s, times: Int64s, *, in_order: bool) -> list[tuple[int, slice]]:
    """The rows with so many of a batch's transactions that each is better taken by itself than with the others, a
    transaction of each at a time; and which transactions these are.

    Args:
        rows: Ascending, shape (n,).
        times: Event time of each transaction, shape (n,).
        in_order: Only rows whose transactions come in order of time.
    """
    firsts = np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1])))
    counts = np.diff(np.append(firsts, len(rows)))
    if int(counts.max()) <= _ROW_COST:
        return []
    most = np.argsort(-counts, kind="stable")
    left = np.append(counts[most], 0)
    busy = most[: int(np.argmin(_ROW_COST * np.arange(len(left)) + left))]
    ends = firsts + counts
    parts = [slice(first, end) for first, end in zip(firsts[busy].tolist(), ends[busy].tolist(), strict=True)]
    return [(int(rows[part.start]), part) for part in parts if not in_order or (np.diff(times[part]) >= 0).all()]


def ascending_runs(rows: Int64s, times: Int64s) -> Iterator[slice | Int64s]:
    """Cut entries, ordered by row and then by arrival, so that times ascend within a row in each part."""
    falls = (rows[1:] == rows[:-1]) & (times[1:] < times[:-1])
    if not falls.any():
        if len(rows):
            yield slice(None)
        return
    run = np.concatenate(([0], np.cumsum(falls)))
    firsts = np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1])))
    run -= np.repeat(run[firsts], np.diff(np.append(firsts, len(rows))))
    for number in range(int(run.max()) + 1):
        yield np.flatnonzero(run == number)


class BatchWindows:
    """What each transaction of a batch, in log order and all of one user, sees of those before it in the log.

    Args:
        times: Event time, ms, shape (n,).
        amounts: Minor units, shape (n,).
        floor: What is not later than this is forgotten when the transaction comes, shape (n,).

    Attributes:
        count: Transactions in each of ``WINDOWS_MS``, then in the longest one, the own one included, shape (k, n).
        total: Sum of their amounts, shape (k, n).
        greatest: Greatest amount of the longest window, shape (n,).
        last: Time of the latest one before, ``LONG_AGO`` where there is none; shape (n,).
    """

    def __init__(self, times: Int64s, amounts: Int64s, floor: Int64s) -> None:
        self._times = times
        self._amounts = amounts
        self._floor = floor
        self.count = np.ones((len(_REACHES_MS), len(times)), np.int64)
        self.total = np.tile(amounts, (len(_REACHES_MS), 1))
        self.greatest = amounts.copy()
        self.last = np.full(len(times), LONG_AGO)

    def add_stored(self, times: Int64s, amounts: Int64s, before: Int64s, greatest: int, greatest_at: int) -> None:
        """Count what was stored before the batch: ascending *times*, *before* their running sums, the *greatest* amount
        of the longest window of the last one with its latest time."""
        if not len(times):
            return
        n = len(self._times)
        known = (self._times >= times[-1]) & (greatest_at > np.maximum(self._times - LONGEST_MS, self._floor))
        self.greatest[known] = np.maximum(self.greatest[known], greatest)
        self._add(np.arange(n), np.zeros(n, np.int64), np.full(n, len(times)), times, amounts, before, known)

    def add_batch(self) -> None:
        """Count what came before in the batch itself: halves of ever larger parts of it, the first half seen by the
        second."""
        n = len(self._times)
        at = np.arange(n)
        if not (self._times[1:] < self._times[:-1]).any():
            self._add(at, np.zeros(n, np.int64), at, self._times, self._amounts, _running(self._amounts))
            return
        for level in range((n - 1).bit_length()):
            part = at >> level
            order = np.lexsort((self._times, part))
            amounts = self._amounts[order]
            second = np.flatnonzero(part & 1)
            first = (part[second] - 1) << level
            self._add(second, first, first + (1 << level), self._times[order], amounts, _running(amounts))

    def _add(
        self,
        mine: Int64s,
        low: Int64s,
        high: Int64s,
        times: Int64s,
        amounts: Int64s,
        before: Int64s,
        has_greatest: NDArray[np.bool_] | None = None,
    ) -> None:
        """Count for the transactions *mine* the entries ``low .. high - 1`` of *times* that their windows hold."""
        own, floor = self._times[mine], self._floor[mine]
        high = search_after(times, low, high, own)
        bounds, n = np.maximum(own - _REACHES_MS[:, None], floor), len(_REACHES_MS)
        lows = search_after(times, np.tile(low, n), np.tile(high, n), bounds.ravel()).reshape(n, len(mine))
        last = np.maximum(high - 1, 0)
        holds = lows < high
        self.count[:, mine] += high - lows
        self.total[:, mine] += np.where(holds, before[last] + amounts[last] - before[np.minimum(lows, last)], 0)
        looks = holds[_LONGEST_AT] if has_greatest is None else holds[_LONGEST_AT] & ~has_greatest
        longest = np.flatnonzero(looks)
        if len(longest):
            first = lows[_LONGEST_AT, longest]
            base = int(first.min())
            maxima = RangeMax(amounts[base : int(last.max()) + 1]).of(first - base, last[longest] - base)
            self.greatest[mine[longest]] = np.maximum(self.greatest[mine[longest]], maxima)
        latest = np.where((high > low) & (times[last] > floor), times[last], LONG_AGO)
        self.last[mine] = np.maximum(self.last[mine], latest)


def _running(amounts: Int64s) -> Int64s:
    return np.cumsum(amounts) - amounts
