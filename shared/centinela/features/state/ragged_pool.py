"""Rows of time-ordered entries in pooled blocks: the structure under users and terminals.

A row is one block of a few long arrays (event time and further int64 columns). Entries are appended at its end; an
entry that comes late is merged into its place; what expired is dropped when the block is full: the rest is shifted down
where a quarter of the block is free then, else moved to a larger block, and the old block is used again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from centinela.features.keys import Int64s

Mask = NDArray[np.bool_]
_LEAST_BLOCK = 4
_LOW = (1 << 32) - 1
_NO_TIME = np.iinfo(np.int64).min


def flat_ranges(starts: Int64s, lengths: Int64s) -> Int64s:
    """The indices ``starts[i] .. starts[i] + lengths[i] - 1`` of all i, one after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()), dtype=np.int64)


def order_of(rows: Int64s, times: Int64s | None = None) -> Int64s:
    """The stable order of *rows* (each >= 0 and below 2^31), of *times* within a row where they are given; shape
    (n,)."""
    if times is not None and (times[1:] < times[:-1]).any():
        return np.lexsort((times, rows))
    return np.sort(rows << 32 | np.arange(len(rows), dtype=np.int64)) & _LOW


def search_after(times: Int64s, low: Int64s, high: Int64s, bound: Int64s) -> Int64s:
    """Per i the first index in ``low[i] .. high[i]`` whose time is later than ``bound[i]``; ``high[i]`` if none is.

    Args:
        times: Ascending within each range.
        low: First index of each range, shape (n,).
        high: Index after each range, shape (n,).
        bound: Time of each query, shape (n,).
    """
    found = low.copy()
    longest = int((high - low).max(initial=0))
    step = 1 << longest.bit_length() >> 1
    before = high - 1
    while step:
        reached = found + (step - 1)
        found += step * ((reached <= before) & (times.take(reached, mode="clip") <= bound))
        step >>= 1
    return found


class Inserted(NamedTuple):
    """Where an insertion put its entries.

    ``positions`` (n,) follow the input. ``rows`` (m,) are those touched, each once; ``firsts`` and ``counts`` (m,)
    delimit each row's part of the input; ``changed`` (m,) is the first index in each row's block that holds another
    entry than before.
    """

    positions: Int64s
    rows: Int64s
    firsts: Int64s
    counts: Int64s
    changed: Int64s


class RaggedPool:
    """Blocks of entries, one per row.

    Args:
        columns: int64 columns of an entry; column 0 is event time, in which a row ascends.
        merged: How many leading columns an insertion brings (the others are derived by the owner).
    """

    def __init__(self, columns: int, merged: int | None = None) -> None:
        self.columns = [np.zeros(1024, dtype=np.int64) for _ in range(columns)]
        self._merged = columns if merged is None else merged
        self._offset, self._capacity = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.start, self.end = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._rows, self._top = 0, 0
        self._free: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return self._rows

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(array.nbytes for array in (*self.columns, self._offset, self._capacity, self.start, self.end))

    @property
    def slots(self) -> int:
        """Capacity, in entries, of the allocated blocks."""
        return self._top

    def add_rows(self, count: int) -> None:
        """Append *count* empty rows."""
        self._rows += count
        if self._rows > len(self.start):
            size = max(1024, 2 * self._rows)
            for name in ("_offset", "_capacity", "start", "end"):
                old = getattr(self, name)
                new = np.zeros(size, np.int64)
                new[: len(old)] = old
                setattr(self, name, new)

    def insert(self, rows: Int64s, *values: Int64s) -> Inserted:
        """Insert entries by time, after those of equal time.

        Args:
            rows: Row of each entry, ascending, shape (n,), n > 0.
            values: The merged columns, each of shape (n,); times ascend within a row.
        """
        firsts = np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1])))
        counts = np.diff(np.append(firsts, len(rows)))
        touched = rows[firsts]
        self._reserve(touched, counts)
        start, end = self.start[touched], self.end[touched]
        positions = flat_ranges(end, counts)
        for column, value in zip(self.columns, values, strict=False):
            column[positions] = value
        self.end[touched] = end + counts
        newest = np.where(end > start, self.columns[0][np.maximum(end - 1, 0)], _NO_TIME)
        changed = end
        late = np.flatnonzero(values[0][firsts] < newest)
        if len(late):
            first_new = values[0][firsts[late]]
            changed = end.copy()
            changed[late] = search_after(self.columns[0], start[late], end[late], first_new)
            self._merge(positions, changed[late], end[late], counts[late], firsts[late])
        return Inserted(positions, touched, firsts, counts, changed)

    def expire(self, rows: Int64s, through: Int64s) -> None:
        """Drop from each of *rows* (distinct) its entries of times up to *through*, shape (m,)."""
        start, end = self.start[rows], self.end[rows]
        stale = np.flatnonzero((start < end) & (self.columns[0][np.minimum(start, max(self._top - 1, 0))] <= through))
        if len(stale):
            self.start[rows[stale]] = search_after(self.columns[0], start[stale], end[stale], through[stale])

    def live(self) -> tuple[Int64s, list[Int64s]]:
        """Entries per row, shape (rows,), and the columns with the entries of all rows in order."""
        start, end = self.start[: self._rows], self.end[: self._rows]
        flat = flat_ranges(start, end - start)
        return end - start, [column[flat] for column in self.columns]

    def load(self, lengths: Int64s, columns: list[Int64s]) -> None:
        """Fill this empty pool with what ``live`` returned."""
        self.add_rows(len(lengths))
        filled = np.flatnonzero(lengths)
        if len(filled):
            self._reserve(filled, lengths[filled])
            flat = flat_ranges(self.start[filled], lengths[filled])
            for column, values in zip(self.columns, columns, strict=True):
                column[flat] = values
            self.end[filled] += lengths[filled]

    def _merge(self, positions: Int64s, changed: Int64s, end: Int64s, counts: Int64s, firsts: Int64s) -> None:
        """Move entries appended at *end* to their places among ``changed .. end - 1``, after those of equal time."""
        appended, waiting = flat_ranges(end, counts), flat_ranges(changed, end - changed)
        rank = appended - np.repeat(end, counts)
        found = search_after(
            self.columns[0], np.repeat(changed, counts), np.repeat(end, counts), self.columns[0][appended]
        )
        target = found + rank
        lengths = end - changed + counts
        whole = flat_ranges(changed, lengths)
        stays = np.ones(len(whole), bool)
        stays[target - np.repeat(changed - (np.cumsum(lengths) - lengths), counts)] = False
        makes_room = whole[stays]
        for column in self.columns[: self._merged]:
            values, others = column[appended], column[waiting]
            column[target], column[makes_room] = values, others
        positions[flat_ranges(firsts, counts)] = target

    def _reserve(self, rows: Int64s, extra: Int64s) -> None:
        start, end, offset, capacity = self.start[rows], self.end[rows], self._offset[rows], self._capacity[rows]
        full = np.flatnonzero(end + extra > offset + capacity)
        if not len(full):
            return
        rows, start, capacity, offset = rows[full], start[full], capacity[full], offset[full]
        live = end[full] - start
        need = live + extra[full]
        moves = np.flatnonzero(4 * need > 3 * capacity)
        target = offset.copy()
        if len(moves):
            sizes = np.maximum(_LEAST_BLOCK, 2 ** np.ceil(np.log2(need[moves] * 4 / 3)).astype(np.int64))
            target[moves] = self._allocate(sizes)
        source, destination = flat_ranges(start, live), flat_ranges(target, live)
        for column in self.columns:
            column[destination] = column[source]
        for size, block in zip(capacity[moves].tolist(), offset[moves].tolist(), strict=True):
            if size:
                self._free.setdefault(size, []).append(block)
        self._offset[rows], self.start[rows], self.end[rows] = target, target, target + live
        if len(moves):
            self._capacity[rows[moves]] = sizes

    def _allocate(self, sizes: Int64s) -> Int64s:
        blocks = np.empty(len(sizes), np.int64)
        for size in np.unique(sizes).tolist():
            wanting = np.flatnonzero(sizes == size)
            free = self._free.get(size, [])
            reused = min(len(free), len(wanting))
            if reused:
                blocks[wanting[:reused]] = free[-reused:]
                del free[-reused:]
            fresh = len(wanting) - reused
            blocks[wanting[reused:]] = self._top + size * np.arange(fresh, dtype=np.int64)
            self._top += size * fresh
        if self._top > len(self.columns[0]):
            size = max(2 * len(self.columns[0]), self._top)
            for at, old in enumerate(self.columns):
                grown = np.zeros(size, np.int64)
                grown[: len(old)] = old
                self.columns[at] = grown
        return blocks
