"""Each cardholder's history, and the features computed from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from centinela.features.keys import MISSING_ID, Hashes, Int64s
from centinela.features.layout import BASE_LAYOUT, USER_FEATURES, FeatureLayout
from centinela.features.spec import LONGEST_MS
from centinela.features.state.base_windows import WINDOWS_MS
from centinela.features.state.busy_rows import LONG_AGO, BatchWindows, ascending_runs, busy_rows
from centinela.features.state.extras import ExtraFeatures
from centinela.features.state.greatest import GreatestAmounts
from centinela.features.state.id_table import IdTable
from centinela.features.state.ragged_pool import Inserted, RaggedPool, flat_ranges, order_of, search_after
from centinela.times import DAY_MS

LATENESS_MS = 2 * DAY_MS
"""A transaction up to this much older than its user's newest has complete windows."""
HORIZON_MS = LONGEST_MS + LATENESS_MS
_MAX_AT = USER_FEATURES.index("user_max_30d")
_SINCE_AT = USER_FEATURES.index("user_seconds_since_last")
_TIME, _AMOUNT, _BEFORE = 0, 1, -1
_TAKEN = -1
_BASE = len(USER_FEATURES)
Matrix = NDArray[np.float64]


class UserState:
    """Amounts and times per user over the longest window, with the features of ``USER_FEATURES`` and *layout*'s extra
    ones.

    A window of W covers ``(t - W, t]``, the transaction itself included: count, mean, and for the longest the greatest
    amount, in major units; and also the seconds since the user's transaction before, NaN where none is known. The
    features of a transaction rest on those that came before it in the log, of times up to its own: what comes later,
    even with an earlier or the same time, does not change them. So equal times are ordered as the log orders them (a
    log written in the order of time and transaction id thus keeps the order of ids), and how the log is cut into
    batches does not matter. A transaction ``HORIZON_MS`` or more older than its user's newest is not kept and sees
    nothing but itself.
    """

    def __init__(self, layout: FeatureLayout = BASE_LAYOUT) -> None:
        self._index = IdTable()
        self._stored = len(layout.stored)
        self._extras = ExtraFeatures(layout.user_extra, layout.stored)
        self._pool = RaggedPool(columns=3 + self._stored, merged=2 + self._stored)
        self._greatest = GreatestAmounts(self._pool, _TIME, _AMOUNT)
        self._late = self._too_late = 0

    def __len__(self) -> int:
        return len(self._index)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self._index.nbytes + self._pool.nbytes + self._greatest.nbytes

    @property
    def width(self) -> int:
        """Features of a transaction: k."""
        return _BASE + len(self._extras)

    def apply(self, users: Hashes, times: Int64s, amounts: Int64s, stored: Int64s | None = None) -> Matrix:
        """Apply transactions in log order; their features, shape (n, k).

        Args:
            users: Hash of each user, ``MISSING_ID`` where there is none (features NaN, nothing kept), shape (n,).
            times: Event time, ms, shape (n,).
            amounts: Minor units, shape (n,).
            stored: The bits of the other columns that the layout stores, shape (len(layout.stored), n).
        """
        own = self._own(times, amounts, stored)
        features = np.full((len(users), self.width), np.nan)
        known = np.flatnonzero(users != MISSING_ID)
        if not len(known):
            return features
        rows = self._rows_of(users[known])
        order = order_of(rows)
        rows, at = rows[order], known[order]
        busy = busy_rows(rows, times[at], in_order=len(self._extras) > 0)
        for row, part in busy:
            features[at[part]] = self._apply_busy(row, [column[at[part]] for column in own])
            rows[part] = _TAKEN
        if busy:
            rows, at = rows[rows != _TAKEN], at[rows != _TAKEN]
        for run in ascending_runs(rows, times[at]):
            features[at[run]] = self._apply_run(rows[run], [column[at[run]] for column in own])
        return features

    def read(self, users: Hashes, times: Int64s, amounts: Int64s, stored: Int64s | None = None) -> Matrix:
        """The features of each transaction if it alone were applied next. Changes nothing. Shape (n, k)."""
        everything = self._own(times, amounts, stored)
        features = np.full((len(users), self.width), np.nan)
        known = np.flatnonzero(users != MISSING_ID)
        if not len(known):
            return features
        rows = self._index.find(users[known])
        stranger = known[rows < 0]
        features[stranger] = self._alone([column[stranger] for column in everything])
        at, rows = known[rows >= 0], rows[rows >= 0]
        if len(at):
            own = [column[at] for column in everything]
            start, end = self._pool.start[rows], self._pool.end[rows]
            position = search_after(self._pool.columns[_TIME], start, end, own[_TIME])
            features[at] = self._windows(start, position, own)
            features[at, _MAX_AT] = (
                self._greatest.of(rows, start, position, own[_TIME], own[_AMOUNT], position == end)[0] / 100.0
            )
        return features

    def taken_late(self) -> tuple[int, int]:
        """Transactions applied since the last call that were older than their user's newest: up to
        ``LATENESS_MS``, and more."""
        counts = self._late, self._too_late
        self._late = self._too_late = 0
        return counts

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The state as named arrays, for a snapshot."""
        lengths, columns = self._pool.live()
        return {
            "users": self._index.ids.copy(),
            "lengths": lengths,
            "times": columns[_TIME],
            "amounts": columns[_AMOUNT],
            **self._greatest.arrays(len(self._index)),
            **{f"stored_{number}": column for number, column in enumerate(columns[2:_BEFORE])},
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]], layout: FeatureLayout = BASE_LAYOUT) -> UserState:
        """The state that ``arrays`` came from; *layout* stores the same columns as then."""
        state = cls(layout)
        lengths, times, amounts = (arrays[name].astype(np.int64) for name in ("lengths", "times", "amounts"))
        starts = np.cumsum(lengths) - lengths
        sums = np.cumsum(amounts) - amounts
        before = sums - np.repeat(sums[np.minimum(starts, max(len(sums) - 1, 0))], lengths) if len(sums) else sums
        state._index.add(arrays["users"].astype(np.uint64))
        stored = [arrays[f"stored_{number}"].astype(np.int64) for number in range(state._stored)]
        state._pool.load(lengths, [times, amounts, *stored, before])
        state._greatest.load(arrays)
        return state

    def _rows_of(self, users: Hashes) -> Int64s:
        rows = self._index.of(users)
        self._pool.add_rows(len(self._index) - len(self._pool))
        self._greatest.add_rows(len(self._index))
        return rows

    def _own(self, times: Int64s, amounts: Int64s, stored: Int64s | None) -> list[Int64s]:
        """The columns of a transaction."""
        others = [] if stored is None else list(stored)
        if len(others) != self._stored:
            raise ValueError(
                f"{len(others)} columns given in addition to time and amount; the layout stores {self._stored}"
            )
        return [times, amounts, *others]

    def _apply_busy(self, row: int, own: list[Int64s]) -> Matrix:
        """Features of many entries of one row, in log order."""
        pool, times, amounts = self._pool, own[_TIME], own[_AMOUNT]
        stored = slice(int(pool.start[row]), int(pool.end[row]))
        stamps, held, before = (pool.columns[at][stored] for at in (_TIME, _AMOUNT, _BEFORE))
        newest = np.maximum.accumulate(np.append(stamps[-1:] if len(stamps) else LONG_AGO, times[:-1]))
        kept = times > newest - HORIZON_MS
        if not kept.all():
            self._too_late += int((~kept).sum())
            features = np.empty((len(times), self.width))
            features[~kept] = self._alone([column[~kept] for column in own])
            if kept.any():
                features[kept] = self._apply_busy(row, [column[kept] for column in own])
            return features
        self._count_late(times, newest)
        seen = BatchWindows(times, amounts, newest - HORIZON_MS)
        seen.add_stored(stamps, held, before, *self._greatest.of_newest(row))
        seen.add_batch()
        order = np.argsort(times, kind="stable")
        put = pool.insert(np.full(len(times), row), *(column[order] for column in own))
        self._sum_up(put)
        features = np.empty((len(times), self.width))
        count, total = seen.count[: len(WINDOWS_MS)], seen.total[: len(WINDOWS_MS)]
        features[:, 0:_MAX_AT:2] = count.T
        features[:, 1:_MAX_AT:2] = (total / (100.0 * count)).T
        features[:, _MAX_AT] = seen.greatest / 100.0
        features[:, _SINCE_AT] = np.where(seen.last > LONG_AGO, (times - seen.last) / 1000.0, np.nan)
        start = pool.start[[row]]
        if len(self._extras):
            features[:, _BASE:] = self._extras.of(pool.columns, np.repeat(start, len(times)), put.positions, own)
        self._greatest.refresh(row)
        pool.expire(put.rows, pool.columns[_TIME][pool.end[put.rows] - 1] - HORIZON_MS)
        return features

    def _count_late(self, times: Int64s, newest: Int64s) -> None:
        late, too_late = int((times < newest).sum()), int((times < newest - LATENESS_MS).sum())
        self._late, self._too_late = self._late + late - too_late, self._too_late + too_late

    def _apply_run(self, rows: Int64s, own: list[Int64s]) -> Matrix:
        """Features of entries ascending in time within a row; *rows* ascend."""
        pool, times, amounts = self._pool, own[_TIME], own[_AMOUNT]
        start, end = pool.start[rows], pool.end[rows]
        stamps = pool.columns[_TIME]
        newest = np.where(end > start, stamps[np.maximum(end - 1, 0)], LONG_AGO)
        kept = times > newest - HORIZON_MS
        if not kept.all():
            self._too_late += int((~kept).sum())
            features = np.empty((len(rows), self.width))
            features[~kept] = self._alone([column[~kept] for column in own])
            if kept.any():
                features[kept] = self._apply_run(rows[kept], [column[kept] for column in own])
            return features
        self._count_late(times, newest)
        put = pool.insert(rows, *own)
        self._sum_up(put)
        start = pool.start[rows]
        features = self._windows(start, put.positions, own)
        features[:, _MAX_AT] = self._greatest.apply(put, start, newest, times, amounts) / 100.0
        pool.expire(put.rows, pool.columns[_TIME][pool.end[put.rows] - 1] - HORIZON_MS)
        return features

    def _windows(self, start: Int64s, position: Int64s, own: list[Int64s]) -> Matrix:
        """All features but the greatest amount, of transactions that come right after the entries ``start .. position -
        1``."""
        stamps, amounts, before = (self._pool.columns[at] for at in (_TIME, _AMOUNT, _BEFORE))
        times = own[_TIME]
        n = len(times)
        low = search_after(
            stamps,
            np.tile(start, len(WINDOWS_MS)),
            np.tile(position, len(WINDOWS_MS)),
            (times - WINDOWS_MS[:, None]).ravel(),
        ).reshape(len(WINDOWS_MS), n)
        last = np.maximum(position - 1, 0)
        through = before[last] + amounts[last]
        earlier = np.where(low < position, through - before[np.minimum(low, last)], 0)
        count = position - low + 1
        features = np.empty((n, self.width))
        features[:, 0:_MAX_AT:2] = count.T
        features[:, 1:_MAX_AT:2] = ((earlier + own[_AMOUNT]) / (100.0 * count)).T
        features[:, _SINCE_AT] = np.where(position > start, (times - stamps[last]) / 1000.0, np.nan)
        if len(self._extras):
            features[:, _BASE:] = self._extras.of(self._pool.columns, start, position, own)
        return features

    def _alone(self, own: list[Int64s]) -> Matrix:
        """Features of transactions whose windows contain only themselves."""
        features = np.empty((len(own[_TIME]), self.width))
        features[:, 0:_MAX_AT:2] = 1.0
        features[:, 1:_MAX_AT:2] = (own[_AMOUNT] / 100.0)[:, None]
        features[:, _MAX_AT] = own[_AMOUNT] / 100.0
        features[:, _SINCE_AT] = np.nan
        if len(self._extras):
            nothing = np.zeros(len(features), np.int64)
            features[:, _BASE:] = self._extras.of(self._pool.columns, nothing, nothing, own)
        return features

    def _sum_up(self, put: Inserted) -> None:
        """Recompute the running sums from the first changed entry of each row."""
        amounts, before = self._pool.columns[_AMOUNT], self._pool.columns[_BEFORE]
        lengths = self._pool.end[put.rows] - put.changed
        flat = flat_ranges(put.changed, lengths)
        added = amounts[flat]
        running = np.cumsum(added) - added
        last = np.maximum(put.changed - 1, 0)
        base = np.where(put.changed > self._pool.start[put.rows], before[last] + amounts[last], 0)
        base -= running[np.cumsum(lengths) - lengths]
        before[flat] = running + np.repeat(base, lengths)
