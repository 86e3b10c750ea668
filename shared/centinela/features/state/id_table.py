"""Known transaction ids, with values for each: an open-addressing table of 64-bit hashes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from centinela.features.keys import Hashes, Int64s
from centinela.features.payload import UNKNOWN

_LEAST = 1024
_OLD = 1 << 40
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


class IdTable:
    """Maps distinct non-zero hashes to their index in order of arrival.

    At most half of the slots are in use; ids are spread by the golden ratio, and a probe continues at the next slot.

    Args:
        columns: int64 values kept with each id.
    """

    def __init__(self, columns: int = 0) -> None:
        self._keys = np.zeros(_LEAST, np.uint64)
        self._index = np.zeros(_LEAST, np.int64)
        self._ids = np.zeros(_LEAST // 2, np.uint64)
        self._columns = [np.zeros(_LEAST // 2, np.int64) for _ in range(columns)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(array.nbytes for array in (self._keys, self._index, self._ids, *self._columns))

    @property
    def ids(self) -> Hashes:
        """All ids in order of arrival; a view."""
        return self._ids[: self._count]

    def column(self, number: int) -> Int64s:
        """One value of every id, in order of arrival; a view that may be written to."""
        return self._columns[number][: self._count]

    def find(self, ids: Hashes) -> Int64s:
        """Index of each of *ids*, shape (n,); -1 if it was never added."""
        slots = self._probe(ids)
        return np.where(self._keys[slots] == ids, self._index[slots], -1)

    def of(self, ids: Hashes) -> Int64s:
        """Index of each of *ids*, shape (n,); new ones are added in their order. For tables without
        columns."""
        index = self.find(ids)
        new = np.flatnonzero(index < 0)
        if len(new):
            strangers = ids[new]
            self.add(strangers[first_of_each(strangers)])
            index[new] = self.find(strangers)
        return index

    def add(self, ids: Hashes, *values: Int64s) -> None:
        """Append *ids*, distinct and not in the table, with their *values*, each of shape (n,)."""
        total = self._count + len(ids)
        if total > len(self._ids):
            size = 1 << (total - 1).bit_length()
            self._ids = np.concatenate((self.ids, np.zeros(size - self._count, np.uint64)))
            self._columns = [
                np.concatenate((c[: self._count], np.zeros(size - self._count, np.int64))) for c in self._columns
            ]
            self._keys, self._index = np.zeros(2 * size, np.uint64), np.zeros(2 * size, np.int64)
            self._place(self.ids, np.arange(self._count, dtype=np.int64))
        self._ids[self._count : total] = ids
        for column, value in zip(self._columns, values, strict=True):
            column[self._count : total] = value
        self._place(ids, np.arange(self._count, total, dtype=np.int64))
        self._count = total

    def _probe(self, ids: Hashes) -> Int64s:
        """The slot of each id, or the empty slot where its search ends."""
        mask = len(self._keys) - 1
        slots = (ids * _SPREAD >> np.uint64(64 - mask.bit_length())).astype(np.int64)
        held = self._keys[slots]
        searching = np.flatnonzero((held != ids) & (held != 0))
        while len(searching):
            moved = (slots[searching] + 1) & mask
            slots[searching] = moved
            held = self._keys[moved]
            searching = searching[(held != ids[searching]) & (held != 0)]
        return slots

    def _place(self, ids: Hashes, index: Int64s) -> None:
        while len(ids):
            slots = self._probe(ids)
            self._keys[slots] = ids
            won = self._keys[slots] == ids
            self._index[slots[won]] = index[won]
            ids, index = ids[~won], index[~won]


class IdGenerations:
    """An ``IdTable`` that forgets its oldest ids a generation at a time.

    A *place* is the position of an id until the next ``turn``; -1 is none.
    """

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._current, self._previous = IdTable(columns), IdTable(columns)

    def __len__(self) -> int:
        return len(self._current) + len(self._previous)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self._current.nbytes + self._previous.nbytes

    def find(self, ids: Hashes) -> Int64s:
        """The place of each of *ids*, shape (n,)."""
        places = self._current.find(ids)
        if len(self._previous):
            old = self._previous.find(ids)
            places = np.where((places < 0) & (old >= 0), old + _OLD, places)
        return places

    def get(self, column: int, places: Int64s, missing: int) -> Int64s:
        """The value of *column* at each of *places*, *missing* where that is -1; shape (n,)."""
        values = np.full(len(places), missing, np.int64)
        for here, at, table in self._split(places):
            values[here] = table.column(column)[at]
        return values

    def put(self, column: int, places: Int64s, values: Int64s) -> None:
        """Change the value of *column* at *places*, none of them -1."""
        for here, at, table in self._split(places):
            table.column(column)[at] = values[here]

    def add(self, ids: Hashes, *values: Int64s) -> None:
        """See ``IdTable.add``."""
        self._current.add(ids, *values)

    def column(self, column: int) -> Int64s:
        """The values of *column*, in no order."""
        return np.concatenate([self._current.column(column), self._previous.column(column)])

    def turn(self) -> IdTable:
        """Begin a new generation; what was forgotten."""
        forgotten, self._previous, self._current = self._previous, self._current, IdTable(self._columns)
        return forgotten

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What ``load`` needs."""
        arrays: dict[str, NDArray[np.generic]] = {}
        for name, table in (("current", self._current), ("previous", self._previous)):
            arrays[f"{name}_ids"] = table.ids.copy()
            arrays[f"{name}_columns"] = np.stack([table.column(c) for c in range(self._columns)])
        return arrays

    def load(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Fill this empty object."""
        for name, table in (("current", self._current), ("previous", self._previous)):
            table.add(arrays[f"{name}_ids"].astype(np.uint64), *arrays[f"{name}_columns"].astype(np.int64))

    def _split(self, places: Int64s) -> Iterator[tuple[NDArray[np.bool_], Int64s, IdTable]]:
        current = (places >= 0) & (places < _OLD)
        yield current, places[current], self._current
        if len(self._previous):
            old = places >= _OLD
            yield old, places[old] - _OLD, self._previous


def first_of_each(ids: Hashes) -> NDArray[np.bool_]:
    """Which of *ids*, shape (n,), do not repeat an earlier one."""
    ordered = np.sort(ids)
    if not (ordered[1:] == ordered[:-1]).any():
        return np.ones(len(ids), bool)
    first = np.zeros(len(ids), bool)
    first[np.unique(ids, return_index=True)[1]] = True
    return first


class SeenIds:
    """Recognises ids seen before: at least the last *generation* ids, at most twice as many, in order of arrival.

    Event time has no part in it: a copy is recognised however late it comes. Of each id the payload that it came with
    first is kept.
    """

    def __init__(self, generation: int = 1_000_000) -> None:
        if generation < 1:
            raise ValueError(f"a generation of {generation} ids cannot hold one")
        self._generation = generation
        self._current, self._previous = IdTable(columns=1), IdTable(columns=1)

    def admit(self, ids: Hashes, payloads: Int64s | None = None) -> NDArray[np.bool_]:
        """Which of *ids*, shape (n,), are new; of equal ones the first. They count as seen from now on, with *payloads*
        (unknown if None)."""
        parts = []
        payloads = np.full(len(ids), UNKNOWN, np.int64) if payloads is None else payloads
        while len(ids):
            room = self._generation - len(self._current)
            part, ids = ids[:room], ids[room:]
            said, payloads = payloads[:room], payloads[room:]
            fresh = self.unseen(part)
            self._current.add(part[fresh], said[fresh])
            parts.append(fresh)
            if len(self._current) == self._generation:
                self._current, self._previous = IdTable(columns=1), self._current
        return np.concatenate(parts) if parts else np.zeros(0, bool)

    def unseen(self, ids: Hashes) -> NDArray[np.bool_]:
        """Like ``admit``, but changes nothing."""
        fresh = self._current.find(ids) < 0
        if len(self._previous):
            fresh &= self._previous.find(ids) < 0
        return fresh & first_of_each(ids)

    def payloads(self, ids: Hashes) -> Int64s:
        """The first payload of each of *ids*, shape (n,); ``UNKNOWN`` if it is forgotten."""
        found = np.full(len(ids), UNKNOWN, np.int64)
        for table in (self._previous, self._current):
            index = table.find(ids)
            found[index >= 0] = table.column(0)[index[index >= 0]]
        return found

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What ``load`` needs."""
        return {
            name: array.copy()
            for when, table in (("current", self._current), ("previous", self._previous))
            for name, array in ((f"seen_{when}", table.ids), (f"payloads_{when}", table.column(0)))
        }

    def load(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Fill this empty object."""
        for when, table in (("current", self._current), ("previous", self._previous)):
            table.add(arrays[f"seen_{when}"].astype(np.uint64), arrays[f"payloads_{when}"].astype(np.int64))
