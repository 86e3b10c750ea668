"""Sums of what is known at a time, in windows of one terminal with many frauds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from centinela.features.keys import Int64s

_GROUP = 64


def sums_known(known: Int64s, changes: Int64s, times: Int64s, low: Int64s, high: Int64s) -> Int64s:
    """For each query the sum of ``changes[low .. high - 1]`` that are known by its time, in each window; shape (w, n).

    Queries are taken in groups of close times: what is known by the first of a group is summed once for all of it, and
    what becomes known within it is looked at one by one.

    Args:
        known: When each change becomes known, shape (m,).
        changes: Shape (m,).
        times: Time of each query, shape (n,).
        low: First index of each query's windows, shape (w, n).
        high: Index after the last, shape (w, n).
    """
    result = np.zeros(low.shape, np.int64)
    order = np.argsort(times, kind="stable")
    for first in range(0, len(order), _GROUP):
        group = order[first : first + _GROUP]
        since, until = times[group[0]], times[group[-1]]
        through = np.concatenate(([0], np.cumsum(np.where(known <= since, changes, 0))))
        result[:, group] = through[high[:, group]] - through[low[:, group]]
        newer = np.flatnonzero((known > since) & (known <= until))
        if len(newer):
            result[:, group] += _newer(newer, known, changes, times[group], low[:, group], high[:, group])
    return result


def _newer(newer: NDArray[np.intp], known: Int64s, changes: Int64s, times: Int64s, low: Int64s, high: Int64s) -> Int64s:
    by_then = known[newer] <= times[:, None]
    inside = (newer >= low[:, :, None]) & (newer < high[:, :, None]) & by_then
    sums: Int64s = np.where(inside, changes[newer], 0).sum(axis=2)
    return sums
