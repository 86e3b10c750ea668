"""User windows against an independent computation, whatever the order, the lateness and the cut into batches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centinela.features.keys import MISSING_ID
from centinela.features.state.users import HORIZON_MS, LATENESS_MS, UserState
from centinela.times import DAY_MS, HOUR_MS

Transaction = tuple[int, int, int]
"""User, time in ms, amount in minor units."""
START = 1_522_540_800_000


def brute_force(log: list[Transaction], last: int | None = None) -> np.ndarray:
    """The features by their definition: one look through all that came before, for each of the *last* transactions."""
    rows = []
    first = 0 if last is None else len(log) - last
    for at, (user, time, amount) in enumerate(log[first:], start=first):
        if user == MISSING_ID:
            rows.append([np.nan] * 8)
            continue
        row: list[float] = []
        newest = max((t for u, t, _ in log[:at] if u == user), default=None)
        too_late = newest is not None and time <= newest - HORIZON_MS
        before = (
            []
            if too_late
            else [
                (t, a)
                for u, t, a in log[:at]
                if u == user and t <= time and newest is not None and t > newest - HORIZON_MS
            ]
        )
        kept = list(before)
        for days in (1, 7, 30):
            window = [a for t, a in kept if t > time - days * DAY_MS] + [amount]
            row += [len(window), sum(window) / (100.0 * len(window))]
        row.append(max(window) / 100.0)
        row.append((time - max(t for t, _ in kept)) / 1000.0 if kept else np.nan)
        rows.append(row)
    return np.array(rows, dtype=float).reshape(len(rows), 8)


def applied(log: list[Transaction], cuts: Sequence[int] = (), state: UserState | None = None) -> np.ndarray:
    state = UserState() if state is None else state
    parts = []
    for first, last in pairwise([0, *sorted(cuts), len(log)]):
        users, times, amounts = (np.array([row[c] for row in log[first:last]], dtype=np.int64) for c in range(3))
        parts.append(state.apply(users.astype(np.uint64), times, amounts))
    return np.concatenate(parts)


@st.composite
def logs(draw: st.DrawFn) -> list[Transaction]:
    """Few users, coarse times: many ties, late events by hours to months, long gaps."""
    size = draw(st.integers(1, 60))
    step = draw(st.sampled_from([HOUR_MS, 8 * HOUR_MS, DAY_MS, 5 * DAY_MS]))
    users = draw(st.lists(st.integers(MISSING_ID, 3), min_size=size, max_size=size))
    times = draw(st.lists(st.integers(0, 30), min_size=size, max_size=size))
    if draw(st.booleans()):
        times = sorted(times)
    amounts = draw(st.lists(st.integers(0, 5), min_size=size, max_size=size))
    return [(u, START + t * step, a * 100) for u, t, a in zip(users, times, amounts, strict=True)]


@given(logs(), st.data())
@settings(max_examples=300, deadline=None)
def test_windows_equal_an_independent_computation_however_the_log_is_cut(
    log: list[Transaction], data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(log)), max_size=5))

    np.testing.assert_array_equal(applied(log, cuts), brute_force(log))


@given(logs())
@settings(max_examples=100, deadline=None)
def test_reading_gives_what_applying_next_would_give_and_changes_nothing(log: list[Transaction]) -> None:
    reader, writer = UserState(), UserState()
    for user, time, amount in log:
        one = np.array([user], np.uint64), np.array([time]), np.array([amount])
        read = reader.read(*one)
        np.testing.assert_array_equal(read, reader.read(*one))
        np.testing.assert_array_equal(read, writer.apply(*one))
        reader.apply(*one)


@given(logs(), logs())
@settings(max_examples=100, deadline=None)
def test_a_state_restored_from_its_arrays_goes_on_as_if_nothing_had_happened(
    first: list[Transaction], then: list[Transaction]
) -> None:
    state = UserState()
    applied(first, state=state)

    restored = UserState.from_arrays(state.arrays())

    np.testing.assert_array_equal(applied(then, state=restored), applied(then, state=state))
    np.testing.assert_array_equal(
        applied(first + then)[len(first) :], applied(then, state=UserState.from_arrays(_state(first).arrays()))
    )


def _state(log: list[Transaction]) -> UserState:
    state = UserState()
    applied(log, state=state)
    return state


def test_a_window_is_open_at_its_start_and_holds_the_transaction_itself() -> None:
    log = [(1, START, 1000), (1, START + DAY_MS - 1, 3000), (1, START + DAY_MS, 5000)]

    features = applied(log)

    assert features[:, 0].tolist() == [1, 2, 2]
    assert features[2, 1] == 40.0
    assert features[2, 2:4].tolist() == [3, 30.0]
    assert features[2, 6:].tolist() == [50.0, 0.001]


def test_means_are_exact_where_floats_would_drift() -> None:
    log = [(1, START + i, 10) for i in range(10_000)]

    assert applied(log, cuts=list(range(0, 10_000, 777)))[-1, 1] == 0.1


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
def test_many_users_over_many_days_keep_their_windows_while_blocks_grow_and_are_used_again(order: str) -> None:
    random = np.random.default_rng(7)
    n = 20_000
    users = random.zipf(1.5, n) % 200 + 1
    times = np.sort(random.integers(0, 120 * DAY_MS, n))
    if order == "descending":
        times = times + np.tile(np.arange(10)[::-1] * HOUR_MS, n // 10)
    elif order == "shuffled":
        times = times + random.integers(0, 12 * HOUR_MS, n)
    amounts = random.integers(0, 10_000, n)
    log = list(zip(users.tolist(), (START + times).tolist(), amounts.tolist(), strict=True))

    features = applied(log, cuts=list(range(0, n, 512)))

    for user in (1, 2, 3, 57):
        mine = [at for at, row in enumerate(log) if row[0] == user][-100:]
        history = [row for row in log if row[0] == user]
        np.testing.assert_array_equal(features[mine], brute_force(history, last=len(mine)))


def test_late_transactions_are_counted_by_whether_they_find_whole_windows() -> None:
    state = UserState()
    applied([(1, START, 100), (1, START - LATENESS_MS, 100), (2, START - HORIZON_MS, 100)], state=state)
    applied(
        [
            (1, START - LATENESS_MS - 1, 100),
            (1, START - HORIZON_MS, 100),
            (1, START, 100),
            (1, START + 1, 100),
            (1, START, 100),
        ],
        state=state,
    )

    assert state.taken_late() == (2, 2)
    assert state.taken_late() == (0, 0)
