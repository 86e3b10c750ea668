"""Each cardholder's history, and the features computed from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from centinela.features.keys import MISSING_ID, Hashes, Int64s
from centinela.features.layout import BASE_LAYOUT, USER_FEATURES, FeatureLayout
from centinela.features.spec import BASE_USER, LONGEST_MS, UNBOUNDED, Feature, duration_text
from centinela.features.state.extras import ExtraFeatures
from centinela.features.state.id_table import IdTable
from centinela.features.state.ragged_pool import Inserted, RaggedPool, flat_ranges, order_of, search_after
from centinela.times import DAY_MS


def base_windows_ms(base: Sequence[Feature]) -> Int64s:
    """The windows of *base*, which must be what this module computes: a count and a mean amount of each window, then
    the greatest amount of the longest one, then the seconds since the transaction before.

    Raises:
        NotImplementedError: *base* has another feature, or a name that tells another window.
    """
    windows = [feature.window_ms for feature in base[:-2:2]]
    kinds = [(kind, window) for window in windows for kind in ("count", "mean")]
    kinds += [("max", LONGEST_MS), ("seconds_since_last", UNBOUNDED)]
    names = [f"user_{kind}_{duration_text(window)}" if window else f"user_{kind}" for kind, window in kinds]
    computed = tuple(Feature(name, "user", *kind) for name, kind in zip(names, kinds, strict=True))
    if tuple(base) != computed:
        differ = sorted({feature.text for feature in base} ^ {feature.text for feature in computed})
        raise NotImplementedError(
            f"BASE_USER: {', '.join(differ) or 'the order'}: the user kernel computes"
            f" {', '.join(feature.name for feature in computed)} (CONTRIBUTING.md, a base feature)"
        )
    return np.array(windows, dtype=np.int64)


WINDOWS_MS = base_windows_ms(BASE_USER)
LATENESS_MS = 2 * DAY_MS
"""A transaction up to this much older than its user's newest has complete windows."""
HORIZON_MS = LONGEST_MS + LATENESS_MS
_MAX_AT = USER_FEATURES.index("user_max_30d")
_SINCE_AT = USER_FEATURES.index("user_seconds_since_last")
_SCANNED_AT_ONCE = 1 << 20
_LONG_AGO = -(1 << 62)
_TIME, _AMOUNT, _BEFORE = 0, 1, -1
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
        self._max_value, self._max_time = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._late = self._too_late = 0

    def __len__(self) -> int:
        return len(self._index)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self._index.nbytes + self._pool.nbytes + self._max_value.nbytes + self._max_time.nbytes

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
        for part in _ascending_runs(rows, times[at]):
            features[at[part]] = self._apply_run(rows[part], [column[at[part]] for column in own])
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
                self._greatest(rows, start, position, own[_TIME], own[_AMOUNT], position == end)[0] / 100.0
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
        n = len(self._index)
        return {
            "users": self._index.ids.copy(),
            "lengths": lengths,
            "times": columns[_TIME],
            "amounts": columns[_AMOUNT],
            "max_value": self._max_value[:n].copy(),
            "max_time": self._max_time[:n].copy(),
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
        state._max_value, state._max_time = arrays["max_value"].astype(np.int64), arrays["max_time"].astype(np.int64)
        return state

    def _rows_of(self, users: Hashes) -> Int64s:
        rows = self._index.of(users)
        self._pool.add_rows(len(self._index) - len(self._pool))
        if (missing := len(self._index) - len(self._max_time)) > 0:
            spare = np.zeros(max(missing, len(self._max_time)), np.int64)
            self._max_value = np.concatenate((self._max_value, spare))
            self._max_time = np.concatenate((self._max_time, spare + _LONG_AGO))
        return rows

    def _own(self, times: Int64s, amounts: Int64s, stored: Int64s | None) -> list[Int64s]:
        """The columns of a transaction."""
        others = [] if stored is None else list(stored)
        if len(others) != self._stored:
            raise ValueError(
                f"{len(others)} columns given in addition to time and amount; the layout stores {self._stored}"
            )
        return [times, amounts, *others]

    def _apply_run(self, rows: Int64s, own: list[Int64s]) -> Matrix:
        """Features of entries ascending in time within a row; *rows* ascend."""
        pool, times, amounts = self._pool, own[_TIME], own[_AMOUNT]
        start, end = pool.start[rows], pool.end[rows]
        stamps = pool.columns[_TIME]
        newest = np.where(end > start, stamps[np.maximum(end - 1, 0)], _LONG_AGO)
        kept = times > newest - HORIZON_MS
        if not kept.all():
            self._too_late += int((~kept).sum())
            features = np.empty((len(rows), self.width))
            features[~kept] = self._alone([column[~kept] for column in own])
            if kept.any():
                features[kept] = self._apply_run(rows[kept], [column[kept] for column in own])
            return features
        late, too_late = int((times < newest).sum()), int((times < newest - LATENESS_MS).sum())
        self._late, self._too_late = self._late + late - too_late, self._too_late + too_late
        put = pool.insert(rows, *own)
        self._sum_up(put)
        start = pool.start[rows]
        features = self._windows(start, put.positions, own)
        features[:, _MAX_AT] = self._maxima(put, start, newest, times, amounts) / 100.0
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

    def _maxima(self, put: Inserted, start: Int64s, newest: Int64s, times: Int64s, amounts: Int64s) -> Int64s:
        """Greatest amount of each entry's longest window; keeps each row's, up to its newest entry, for the next."""
        result = np.empty(len(times), np.int64)
        newest = newest[put.firsts]
        for rank in range(int(put.counts.max())):
            among = np.flatnonzero(put.counts > rank)
            at, rows = put.firsts[among] + rank, put.rows[among]
            t, own = times[at], amounts[at]
            in_order = t >= newest[among]
            value, when = self._greatest(rows, start[at], put.positions[at], t, own, in_order)
            result[at] = value
            known, since = self._max_value[rows], self._max_time[rows]
            matters = ~in_order & (t > newest[among] - LONGEST_MS) & (own >= known)
            self._max_value[rows] = np.where(in_order, value, np.where(matters, own, known))
            self._max_time[rows] = np.where(
                in_order, when, np.where(matters & (own > known), t, np.where(matters, np.maximum(since, t), since))
            )
            newest[among] = np.maximum(newest[among], t)
        return result

    def _greatest(
        self, rows: Int64s, start: Int64s, position: Int64s, times: Int64s, own: Int64s, in_order: NDArray[np.bool_]
    ) -> tuple[Int64s, Int64s]:
        """The greatest amount of ``(t - 30 d, t]`` with the latest time it occurred, looking through entries only where
        needed."""
        known, since = self._max_value[rows], self._max_time[rows]
        takes_own = in_order & (own >= known)
        value, when = np.where(takes_own, own, known), np.where(takes_own, times, since)
        scan = np.flatnonzero(~takes_own & ~(in_order & (since > times - LONGEST_MS)))
        if len(scan):
            value[scan], when[scan] = self._scan(start[scan], position[scan], times[scan], own[scan])
        return value, when

    def _scan(self, start: Int64s, position: Int64s, times: Int64s, own: Int64s) -> tuple[Int64s, Int64s]:
        stamps, amounts = self._pool.columns[_TIME], self._pool.columns[_AMOUNT]
        low = search_after(stamps, start, position, times - LONGEST_MS)
        value, when = own.copy(), times.copy()
        some = np.flatnonzero(low < position)
        for part in np.array_split(some, 1 + int((position - low).sum()) // _SCANNED_AT_ONCE):
            if not len(part):
                continue
            lengths = position[part] - low[part]
            flat = flat_ranges(low[part], lengths)
            bounds = np.cumsum(lengths) - lengths
            greatest = np.maximum.reduceat(amounts[flat], bounds)
            at = np.maximum.reduceat(np.where(amounts[flat] == np.repeat(greatest, lengths), flat, -1), bounds)
            higher = greatest > own[part]
            value[part] = np.where(higher, greatest, own[part])
            when[part] = np.where(higher, stamps[at], times[part])
        return value, when


def _ascending_runs(rows: Int64s, times: Int64s) -> Iterator[slice | Int64s]:
    """Cut entries, ordered by row and then by arrival, so that times ascend within a row in each part."""
    falls = (rows[1:] == rows[:-1]) & (times[1:] < times[:-1])
    if not falls.any():
        yield slice(None)
        return
    run = np.concatenate(([0], np.cumsum(falls)))
    firsts = np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1])))
    run -= np.repeat(run[firsts], np.diff(np.append(firsts, len(rows))))
    for number in range(int(run.max()) + 1):
        yield np.flatnonzero(run == number)
