"""Each terminal's activity and its known frauds, and the features read from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from centinela.features.idtable import IdTable, first_of_each
from centinela.features.keys import DAY_MS, HOUR_MS, NOBODY, Hashes, Int64s
from centinela.features.layout import TERMINAL_FEATURES
from centinela.features.pool import RaggedPool, flat_ranges, search_after
from centinela.features.users import LATENESS_MS, WINDOWS_MS

DELAY_MS = 7 * DAY_MS
"""Windows end this much before the transaction."""
LABEL_MARGIN_MS = HOUR_MS
"""A label counts this much after it was reported, so that one still on its way changes nothing."""
SKEW_MS = DELAY_MS
"""Partitions may be this far apart in event time (see the gate of the predictor's stream)."""
HORIZON_MS = DELAY_MS + int(WINDOWS_MS[-1]) + SKEW_MS + LATENESS_MS
_ROW, _TIME, _IS_FRAUD = 0, 1, 2
_MOST_PENDING = 1_000_000
Matrix = NDArray[np.float64]
Arrays = dict[str, NDArray[np.generic]]


class TerminalState:
    """Activity and frauds of all terminals, with the features of ``TERMINAL_FEATURES``.

    A window of W covers ``(t - 7 d - W, t - 7 d]``: the count of the terminal's transactions, and the share of them that is
    known as fraud at t, 0 where the window is empty. A fraud is known from ``LABEL_MARGIN_MS`` after its first report on.
    Activity and labels may come in any order, mixed and more than once: what was read does not depend on it. A fraud report
    for a transaction that was never heard of waits for it, until all activity is ``HORIZON_MS`` further (and a million wait).
    """

    def __init__(self) -> None:
        self._index: dict[int, int] = {}
        self._activity = RaggedPool(columns=1)
        self._frauds = RaggedPool(columns=2)
        self._current, self._previous = IdTable(columns=3), IdTable(columns=3)
        self._pending: dict[int, tuple[int, int]] = {}
        self._newest, self._rotated = -(1 << 62), -(1 << 62)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def pending(self) -> int:
        """Fraud reports that wait for their transaction."""
        return len(self._pending)

    def apply_activity(self, terminals: Hashes, times: Int64s, ids: Hashes) -> None:
        """Take transactions: hash of the terminal, event time in ms, hash of the transaction id; each of shape (n,)."""
        news = first_of_each(ids) & (self._current.find(ids) < 0) & (self._previous.find(ids) < 0) & (terminals != NOBODY)
        terminals, times, ids = terminals[news], times[news], ids[news]
        if not len(ids):
            return
        index = self._index
        rows = np.array([index.setdefault(terminal, len(index)) for terminal in terminals.tolist()], dtype=np.int64)
        for pool in (self._activity, self._frauds):
            pool.add_rows(len(index) - len(pool))
        order = np.lexsort((times, rows))
        put = self._activity.insert(rows[order], times[order])
        newest = self._activity.columns[0][self._activity.end[put.rows] - 1]
        self._activity.expire(put.rows, newest - HORIZON_MS)
        self._current.add(ids, rows, times, np.zeros(len(ids), np.int64))
        if self._pending:
            waited = [(i, self._pending.pop(i)) for i in ids.tolist() if i in self._pending]
            if waited:
                self._mark(np.array([i for i, _ in waited], np.uint64), np.array([known for _, (known, _) in waited], np.int64))
        self._turn(int(times.max()))

    def apply_labels(self, ids: Hashes, is_fraud: NDArray[np.bool_], occurred: Int64s, reported: Int64s) -> None:
        """Take labels: transaction id hash, outcome, event time and time of the report in ms; each of shape (n,).

        Only frauds leave a trace, and of several reports on one transaction the first.
        """
        if not is_fraud.any():
            return
        ids, occurred, known_at = ids[is_fraud], occurred[is_fraud], reported[is_fraud] + LABEL_MARGIN_MS
        heard = (self._current.find(ids) >= 0) | (self._previous.find(ids) >= 0)
        for i, known, time in zip(ids[~heard].tolist(), known_at[~heard].tolist(), occurred[~heard].tolist(), strict=True):
            self._pending.setdefault(i, (known, time))
        first = heard & first_of_each(ids)
        if first.any():
            self._mark(ids[first], known_at[first])
        while len(self._pending) > _MOST_PENDING:
            del self._pending[next(iter(self._pending))]

    def read(self, terminals: Hashes, times: Int64s) -> Matrix:
        """Features of transactions at *times* on *terminals*, shape (n, 6); NaN where there is no terminal. Changes nothing."""
        n = len(terminals)
        features = np.zeros((n, len(TERMINAL_FEATURES)))
        listed = terminals.tolist()
        rows = np.array([self._index.get(terminal, -1) for terminal in listed], dtype=np.int64)
        at = np.flatnonzero(rows >= 0)
        if len(at):
            counts = self._count(rows[at], times[at])
            features[at, 0::2] = counts
            features[at, 1::2] = self._count_frauds(rows[at], times[at]) / np.maximum(counts, 1)
        features[terminals == NOBODY] = np.nan
        return features

    def arrays(self) -> Arrays:
        """The state as named arrays, for a snapshot."""
        activity, (times,) = self._activity.live()
        frauds, (fraud_times, fraud_known) = self._frauds.live()
        waiting = [(i, known, time) for i, (known, time) in self._pending.items()]
        arrays: Arrays = {
            "terminals": np.fromiter(self._index, np.uint64, len(self._index)),
            "activity": activity, "times": times, "frauds": frauds, "fraud_times": fraud_times, "fraud_known": fraud_known,
            "pending_ids": np.array([i for i, _, _ in waiting], np.uint64),
            "pending_known": np.array([k for _, k, _ in waiting], np.int64),
            "pending_times": np.array([t for _, _, t in waiting], np.int64),
            "clock": np.array([self._newest, self._rotated], np.int64),
        }
        for name, table in (("current", self._current), ("previous", self._previous)):
            arrays[f"{name}_ids"] = table.ids.copy()
            arrays[f"{name}_columns"] = np.stack([table.column(c) for c in range(3)])
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> TerminalState:
        """The state that ``arrays`` came from."""
        state = cls()
        ints = {name: array.astype(np.int64) for name, array in arrays.items() if array.dtype == np.int64}
        hashes = {name: array.astype(np.uint64) for name, array in arrays.items() if array.dtype == np.uint64}
        state._index = {terminal: row for row, terminal in enumerate(hashes["terminals"].tolist())}
        state._activity.load(ints["activity"], [ints["times"]])
        state._frauds.load(ints["frauds"], [ints["fraud_times"], ints["fraud_known"]])
        for name, table in (("current", state._current), ("previous", state._previous)):
            table.add(hashes[f"{name}_ids"], *ints[f"{name}_columns"])
        waiting = zip(hashes["pending_ids"].tolist(), ints["pending_known"].tolist(), ints["pending_times"].tolist(), strict=True)
        state._pending = {i: (known, time) for i, known, time in waiting}
        state._newest, state._rotated = ints["clock"].tolist()
        return state

    def _count(self, rows: Int64s, times: Int64s) -> Int64s:
        start, end = self._activity.start[rows], self._activity.end[rows]
        n = len(rows)
        bounds = np.concatenate([times - DELAY_MS, *(times - DELAY_MS - WINDOWS_MS[:, None])])
        found = search_after(self._activity.columns[0], np.tile(start, 4), np.tile(end, 4), bounds).reshape(4, n)
        counts: Int64s = (found[0] - found[1:]).T
        return counts

    def _count_frauds(self, rows: Int64s, times: Int64s) -> Int64s:
        start, lengths = self._frauds.start[rows], self._frauds.end[rows] - self._frauds.start[rows]
        counts = np.zeros((len(rows), len(WINDOWS_MS)), np.int64)
        if not lengths.any():
            return counts
        flat = flat_ranges(start, lengths)
        owner = np.repeat(np.arange(len(rows)), lengths)
        occurred, known = (column[flat] for column in self._frauds.columns)
        counted = (occurred <= times[owner] - DELAY_MS) & (known <= times[owner])
        for number, window in enumerate(WINDOWS_MS.tolist()):
            inside = counted & (occurred > times[owner] - DELAY_MS - window)
            counts[:, number] = np.bincount(owner[inside], minlength=len(rows))
        return counts

    def _mark(self, ids: Hashes, known_at: Int64s) -> None:
        """Turn transactions heard of (distinct) into known frauds."""
        for table in (self._current, self._previous):
            found = table.find(ids)
            at = found[found >= 0]
            new = table.column(_IS_FRAUD)[at] == 0
            at, known = at[new], known_at[found >= 0][new]
            if len(at):
                table.column(_IS_FRAUD)[at] = 1
                rows, times = table.column(_ROW)[at], table.column(_TIME)[at]
                order = np.lexsort((times, rows))
                put = self._frauds.insert(rows[order], times[order], known[order])
                newest = self._frauds.columns[0][self._frauds.end[put.rows] - 1]
                self._frauds.expire(put.rows, newest - HORIZON_MS)

    def _turn(self, newest: int) -> None:
        """Forget ids and waiting reports that no window can reach any more, a generation at a time."""
        self._newest = max(self._newest, newest)
        if self._newest - self._rotated > HORIZON_MS:
            self._rotated = self._newest
            self._previous, self._current = self._current, IdTable(columns=3)
            self._pending = {i: (known, time) for i, (known, time) in self._pending.items() if time > self._newest - HORIZON_MS}
