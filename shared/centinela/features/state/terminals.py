"""Each terminal's activity and known frauds, and the features computed from them."""

from __future__ import annotations

from itertools import islice

import numpy as np
from numpy.typing import NDArray

from centinela.features.keys import MISSING_ID, Hashes, Int64s
from centinela.features.layout import BASE_LAYOUT, FeatureLayout
from centinela.features.spec import BASE_TERMINAL, LONGEST_MS, TERMINAL_DELAY_MS
from centinela.features.state.id_table import IdGenerations, IdTable, first_of_each
from centinela.features.state.known_changes import sums_known
from centinela.features.state.ragged_pool import RaggedPool, flat_ranges, order_of, search_after
from centinela.features.state.users import LATENESS_MS
from centinela.times import HOUR_MS

DELAY_MS = TERMINAL_DELAY_MS
"""Windows end at least this much before the transaction."""
LABEL_MARGIN_MS = HOUR_MS
"""A label counts from this long after it was reported, so that one still in transit changes nothing."""
SKEW_MS = DELAY_MS - LATENESS_MS
"""Partitions may be this far apart in event time (see the gate of the predictor's stream): a late event in the
partition that is behind is still applied before a window that contains it is read in the other."""
HORIZON_MS = DELAY_MS + LONGEST_MS + SKEW_MS + LATENESS_MS
_ROW, _TIME, _REPORT = 0, 1, 2
_NO_ACTIVITY = -1
_UNREPORTED = -(1 << 62)
_MOST_WAITING = 1_000_000
_MOST = 0.9
_HOT = 1 << 16
Matrix = NDArray[np.float64]
Arrays = dict[str, NDArray[np.generic]]


class TerminalState:
    """Activity and frauds of all terminals, with the features of ``TERMINAL_FEATURES`` and *layout*'s extra ones.

    A base window of W covers ``(t - 7 d - W, t - 7 d]``: the count of the terminal's transactions, and the share of
    them that is known as fraud at t, 0 where the window is empty. A report counts from ``LABEL_MARGIN_MS`` after its
    time on, until the next report on the same transaction does; one that was reported earlier than a report taken
    before is passed over. Activity and labels may come in any order, mixed and more than once, as long as the reports
    on one transaction keep
    theirs: what was read does not depend on it. A report on a transaction that was never heard of waits for it, until
    all activity is ``HORIZON_MS`` further. Of more than a million that wait the oldest frauds are forgotten, and
    further genuine reports are not kept.
    """

    def __init__(self, layout: FeatureLayout = BASE_LAYOUT) -> None:
        self._features = BASE_TERMINAL + layout.terminal_extra
        self._windows = list(dict.fromkeys((feature.delay_ms, feature.window_ms) for feature in self._features))
        self._index = IdTable()
        self._activity = RaggedPool(columns=1)
        self._frauds = RaggedPool(columns=3)
        """Time of the transaction; time from which a label counts; its change, +1 fraud, -1 genuine again."""
        self._transactions = IdGenerations(columns=3)
        """Row of the terminal, or ``_NO_ACTIVITY``; time; the latest report as twice its time, plus 1 for fraud."""
        self._pending: dict[int, list[tuple[int, int]]] = {}
        self._unheard = 0
        self._newest, self._rotated = -(1 << 62), -(1 << 62)
        self._look_at = 0

    def __len__(self) -> int:
        return len(self._index)

    @property
    def nbytes(self) -> int:
        """Bytes in memory, without the waiting reports."""
        return self._index.nbytes + self._activity.nbytes + self._frauds.nbytes + self._transactions.nbytes

    @property
    def width(self) -> int:
        """Features of a transaction: k."""
        return len(self._features)

    @property
    def pending(self) -> int:
        """Transactions whose fraud reports wait for them."""
        return len(self._pending)

    def apply_activity(self, terminals: Hashes, times: Int64s, ids: Hashes) -> None:
        """Apply transactions: hash of the terminal, event time in ms, hash of the id; each of shape (n,)."""
        places = self._transactions.find(ids)
        news = (
            first_of_each(ids)
            & (self._transactions.get(_ROW, places, _NO_ACTIVITY) == _NO_ACTIVITY)
            & (terminals != MISSING_ID)
        )
        if not news.all():
            terminals, times, ids, places = terminals[news], times[news], ids[news], places[news]
        if len(ids):
            self._remember(self._insert(terminals, times), times, ids, places)
            self._turn(int(times.max()))

    def apply_history(self, terminals: Hashes, times: Int64s, ids: Hashes, labelled: NDArray[np.bool_]) -> None:
        """Like ``apply_activity``, for transactions that occur once and of which only *labelled* ones, shape (n,), ever
        have reports."""
        there = terminals != MISSING_ID
        if there.any():
            rows, some = self._insert(terminals[there], times[there]), labelled[there]
            ids = ids[there][some]
            self._remember(rows[some], times[there][some], ids, self._transactions.find(ids))
            self._turn(int(times[there].max()))

    def apply_labels(self, ids: Hashes, is_fraud: NDArray[np.bool_], occurred: Int64s, reported: Int64s) -> None:
        """Apply labels in log order: transaction id hash, outcome, event time and time of the report in ms; each of
        shape (n,)."""
        reports = 2 * reported + is_fraud
        while len(ids):
            first = first_of_each(ids)
            self._report(ids[first], reports[first], occurred[first])
            ids, reports, occurred = ids[~first], reports[~first], occurred[~first]

    def read(self, terminals: Hashes, times: Int64s) -> Matrix:
        """Features of transactions at *times* on *terminals*, shape (n, k); NaN without a terminal. Changes
        nothing."""
        features = np.zeros((len(terminals), len(self._features)))
        rows = self._index.find(terminals)
        at = np.flatnonzero((rows >= 0) & (terminals != MISSING_ID))
        if len(at):
            counts = self._count(rows[at], times[at])
            shares = self._count_frauds(rows[at], times[at]) / np.maximum(counts, 1)
            for number, feature in enumerate(self._features):
                window = self._windows.index((feature.delay_ms, feature.window_ms))
                match feature.aggregation:
                    case "count":
                        features[at, number] = counts[window]
                    case "fraud_share":
                        features[at, number] = shares[window]
                    case other:
                        raise NotImplementedError(f"aggregation {other!r} of a terminal: no code computes it")
        features[terminals == MISSING_ID] = np.nan
        return features

    def arrays(self) -> Arrays:
        """The state as named arrays, for a snapshot."""
        activity, (times,) = self._activity.live()
        frauds, (fraud_times, fraud_known, fraud_changes) = self._frauds.live()
        waiting = [(i, known, change) for i, changes in self._pending.items() for known, change in changes]
        return {
            "terminals": self._index.ids.copy(),
            "activity": activity,
            "times": times,
            "frauds": frauds,
            "fraud_times": fraud_times,
            "fraud_known": fraud_known,
            "fraud_changes": fraud_changes,
            "pending_ids": np.array([i for i, _, _ in waiting], np.uint64),
            "pending_known": np.array([k for _, k, _ in waiting], np.int64),
            "pending_changes": np.array([c for _, _, c in waiting], np.int64),
            "clock": np.array([self._newest, self._rotated], np.int64),
            **self._transactions.arrays(),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, layout: FeatureLayout = BASE_LAYOUT) -> TerminalState:
        """The state that ``arrays`` came from, whatever the layout then."""
        state = cls(layout)
        ints = {name: array.astype(np.int64) for name, array in arrays.items() if array.dtype == np.int64}
        state._index.add(arrays["terminals"].astype(np.uint64))
        state._activity.load(ints["activity"], [ints["times"]])
        state._frauds.load(ints["frauds"], [ints["fraud_times"], ints["fraud_known"], ints["fraud_changes"]])
        state._transactions.load(arrays)
        state._unheard = sum(
            int((ints[f"{name}_columns"][_ROW] == _NO_ACTIVITY).sum()) for name in ("current", "previous")
        )
        waiting = zip(
            arrays["pending_ids"].tolist(),
            ints["pending_known"].tolist(),
            ints["pending_changes"].tolist(),
            strict=True,
        )
        for i, known, change in waiting:
            state._pending.setdefault(i, []).append((known, change))
        state._newest, state._rotated = ints["clock"].tolist()
        return state

    def _count(self, rows: Int64s, times: Int64s) -> Int64s:
        """Transactions in each window, shape (windows, n)."""
        start, end = self._activity.start[rows], self._activity.end[rows]
        back = list(dict.fromkeys(reach for delay, window in self._windows for reach in (delay, delay + window)))
        bounds = np.concatenate([times - reach for reach in back])
        found = search_after(
            self._activity.columns[0], np.tile(start, len(back)), np.tile(end, len(back)), bounds
        ).reshape(len(back), len(rows))
        return np.stack(
            [found[back.index(delay)] - found[back.index(delay + window)] for delay, window in self._windows]
        )

    def _count_frauds(self, rows: Int64s, times: Int64s) -> Int64s:
        """Known frauds in each window, shape (windows, n)."""
        start, lengths = self._frauds.start[rows], self._frauds.end[rows] - self._frauds.start[rows]
        counts = np.zeros((len(self._windows), len(rows)), np.int64)
        for row in _hot(rows, lengths):
            mine = rows == row
            counts[:, mine] = self._count_frauds_of(row, times[mine])
            lengths = np.where(mine, 0, lengths)
        if not lengths.any():
            return counts
        flat = flat_ranges(start, lengths)
        owner = np.repeat(np.arange(len(rows)), lengths)
        occurred, known, changes = (column[flat] for column in self._frauds.columns)
        counted = known <= times[owner]
        for number, (delay, window) in enumerate(self._windows):
            age = times[owner] - delay - occurred
            inside = counted & (age >= 0) & (age < window)
            counts[number] = np.bincount(owner[inside], changes[inside], minlength=len(rows))
        return counts

    def _count_frauds_of(self, row: int, times: Int64s) -> Int64s:
        """Known frauds of one terminal in each window, shape (windows, n)."""
        part = slice(int(self._frauds.start[row]), int(self._frauds.end[row]))
        occurred, known, changes = (column[part] for column in self._frauds.columns)
        ends = np.stack([times - delay for delay, _ in self._windows])
        starts = np.stack([times - delay - window for delay, window in self._windows])
        low, high = np.searchsorted(occurred, starts, "right"), np.searchsorted(occurred, ends, "right")
        return sums_known(known, changes, times, low, high)

    def _insert(self, terminals: Hashes, times: Int64s) -> Int64s:
        """Apply new transactions; the row of each one's terminal."""
        rows = self._index.of(terminals)
        for pool in (self._activity, self._frauds):
            pool.add_rows(len(self._index) - len(pool))
        order = order_of(rows, times)
        put = self._activity.insert(rows[order], times[order])
        newest = self._activity.columns[0][self._activity.end[put.rows] - 1]
        self._activity.expire(put.rows, newest - HORIZON_MS)
        return rows

    def _remember(self, rows: Int64s, times: Int64s, ids: Hashes, places: Int64s) -> None:
        """Transactions were applied: earlier reports on them count from now on."""
        reported = places >= 0
        fresh = ~reported
        self._transactions.add(ids[fresh], rows[fresh], times[fresh], np.full(int(fresh.sum()), _UNREPORTED))
        if not reported.any():
            return
        rows, times, ids, places = rows[reported], times[reported], ids[reported], places[reported]
        self._unheard -= len(ids)
        self._transactions.put(_ROW, places, rows)
        self._transactions.put(_TIME, places, times)
        waited = [
            (row, time, *change)
            for i, row, time in zip(ids.tolist(), rows.tolist(), times.tolist(), strict=True)
            for change in self._pending.pop(i, ())
        ]
        if waited:
            self._change(*np.array(waited, np.int64).T)

    def _report(self, ids: Hashes, reports: Int64s, occurred: Int64s) -> None:
        """Apply reports on distinct transactions."""
        transactions = self._transactions
        places = transactions.find(ids)
        last = transactions.get(_REPORT, places, _UNREPORTED)
        rows = transactions.get(_ROW, places, _NO_ACTIVITY)
        taken, changed = reports >> 1 >= last >> 1, (reports ^ last) & 1 == 1
        known = taken & (places >= 0)
        transactions.put(_REPORT, places[known], reports[known])
        fresh = places < 0
        if self._unheard > _MOST_WAITING:
            fresh &= changed
        self._unheard += int(fresh.sum())
        transactions.add(ids[fresh], rows[fresh], occurred[fresh], reports[fresh])
        known_at, change = (reports >> 1) + LABEL_MARGIN_MS, 2 * (reports & 1) - 1
        counts = taken & changed & (rows != _NO_ACTIVITY)
        if counts.any():
            self._change(rows[counts], transactions.get(_TIME, places[counts], 0), known_at[counts], change[counts])
        waits = taken & changed & (rows == _NO_ACTIVITY)
        for i, *entry in zip(ids[waits].tolist(), known_at[waits].tolist(), change[waits].tolist(), strict=True):
            self._pending.setdefault(i, []).append((entry[0], entry[1]))
        if (excess := len(self._pending) - _MOST_WAITING) > 0:
            forgotten = list(islice(self._pending, excess))
            for i in forgotten:
                del self._pending[i]
            places = transactions.find(np.array(forgotten, np.uint64))
            transactions.put(_REPORT, places, np.full(excess, _UNREPORTED))

    def _change(self, rows: Int64s, times: Int64s, known_at: Int64s, changes: Int64s) -> None:
        """From *known_at* on, add *changes* to the known frauds of their rows' terminals at *times*."""
        order = order_of(rows, times)
        put = self._frauds.insert(rows[order], times[order], known_at[order], changes[order])
        newest = self._frauds.columns[0][self._frauds.end[put.rows] - 1]
        self._frauds.expire(put.rows, newest - HORIZON_MS)

    def _turn(self, newest: int) -> None:
        """Drop ids and waiting reports that no window can reach any more, a generation at a time.

        The newest time only says when to look, because one clock that is far ahead sets it: what is out of reach is
        judged by the time that ``_MOST`` of the transactions have not passed. Looking again waits until there are a
        sixteenth more of them.
        """
        self._newest = max(self._newest, newest)
        if self._newest - self._rotated <= HORIZON_MS or len(self._transactions) < self._look_at:
            return
        times = self._transactions.column(_TIME)[self._transactions.column(_ROW) != _NO_ACTIVITY]
        if not len(times):
            return
        reached = int(np.partition(times, at := int(_MOST * (len(times) - 1)))[at])
        self._look_at = len(self._transactions) * 17 // 16
        if reached - self._rotated <= HORIZON_MS:
            return
        self._newest = self._rotated = reached
        self._look_at = 0
        old = self._transactions.turn()
        waits, in_reach = old.column(_ROW) == _NO_ACTIVITY, old.column(_TIME) > reached - HORIZON_MS
        self._transactions.add(old.ids[in_reach], *(old.column(c)[in_reach] for c in range(3)))
        self._unheard -= int((waits & ~in_reach).sum())
        for i in old.ids[waits & ~in_reach].tolist():
            self._pending.pop(i, None)


def _hot(rows: Int64s, frauds: Int64s) -> list[int]:
    """The terminals of which a batch would look at this many frauds or more: each transaction at all of them."""
    if int(frauds.sum()) < _HOT:
        return []
    distinct, which = np.unique(rows, return_inverse=True)
    return [int(row) for row in distinct[np.bincount(which, frauds) >= _HOT]]
