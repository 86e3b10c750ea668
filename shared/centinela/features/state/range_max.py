"""The greatest value of any part of an array, for many parts at once."""

from __future__ import annotations

import numpy as np

from centinela.features.keys import Int64s

_CHUNK = 64
_LEAST = np.iinfo(np.int64).min


class RangeMax:
    """Answers what the greatest of ``values[first .. last]`` is, at a cost that does not depend on the part's length.

    Within a chunk the running maxima from both its ends are kept, over chunks those of every power of two.
    """

    def __init__(self, values: Int64s) -> None:
        chunks = -(-len(values) // _CHUNK)
        grid = np.full(chunks * _CHUNK, _LEAST, np.int64)
        grid[: len(values)] = values
        self._grid = grid.reshape(chunks, _CHUNK)
        self._through = np.maximum.accumulate(self._grid, axis=1).ravel()
        self._onwards = np.maximum.accumulate(self._grid[:, ::-1], axis=1)[:, ::-1].ravel()
        self._levels = [self._through[_CHUNK - 1 :: _CHUNK]]
        while len(self._levels[-1]) > 1 << (len(self._levels) - 1):
            below, half = self._levels[-1], 1 << (len(self._levels) - 1)
            self._levels.append(np.maximum(below[:-half], below[half:]))

    def of(self, first: Int64s, last: Int64s) -> Int64s:
        """The greatest of each part ``first[i] .. last[i]`` (both inside it), shape (n,)."""
        low, high = first // _CHUNK, last // _CHUNK
        result = np.maximum(self._onwards[first], self._through[last])
        self._add_whole_chunks(result, low, high)
        inside = np.flatnonzero(low == high)
        if len(inside):
            at = np.arange(_CHUNK)
            chunk = self._grid[low[inside]]
            outside = (at < (first[inside] % _CHUNK)[:, None]) | (at > (last[inside] % _CHUNK)[:, None])
            result[inside] = np.where(outside, _LEAST, chunk).max(axis=1)
        return result

    def _add_whole_chunks(self, result: Int64s, low: Int64s, high: Int64s) -> None:
        between = high - low - 1
        for level, maxima in enumerate(self._levels):
            size = 1 << level
            some = np.flatnonzero((between >= size) & (between < 2 * size))
            if len(some):
                spanned = np.maximum(maxima[low[some] + 1], maxima[high[some] - size])
                result[some] = np.maximum(result[some], spanned)
