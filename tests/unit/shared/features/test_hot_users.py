"""Users with many transactions: the same windows, by computations whose cost does not follow what a window holds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centinela.events import TransactionReceived
from centinela.features.assemble import Columns
from centinela.features.keys import hash_ids
from centinela.features.layout import FeatureLayout
from centinela.features.spec import USER_AGGREGATIONS, Feature
from centinela.features.state import extras
from centinela.features.state.busy_rows import busy_rows
from centinela.features.state.range_max import RangeMax
from centinela.features.state.users import UserState
from centinela.times import DAY_MS, HOUR_MS
from tests.unit.shared.features.test_users import START, Transaction, applied, brute_force

HOT = 7
ALL = tuple(
    Feature(f"{aggregation}_{column}_{n}", "user", aggregation, window, column, delay)
    for aggregation in USER_AGGREGATIONS
    for column in ("amount", "v1")
    for n, (window, delay) in enumerate(((6 * HOUR_MS, 0), (30 * DAY_MS, 0), (23 * DAY_MS, 2 * DAY_MS)))
    if column == "amount" or aggregation != "seconds_since_last"
) + tuple(
    Feature(f"terminals_{n}", "user", "distinct", window, "terminal_id", delay)
    for n, (window, delay) in enumerate(((6 * HOUR_MS, 0), (30 * DAY_MS, 0), (23 * DAY_MS, 2 * DAY_MS)))
)
LAYOUT = FeatureLayout(("v1",), ALL)


@st.composite
def hot_logs(draw: st.DrawFn) -> list[Transaction]:
    """One user with most of the transactions, in order of time, nearly so, or in none; ties, gaps, and months late."""
    size = draw(st.integers(9, 150))
    step = draw(st.sampled_from([1, HOUR_MS, 8 * HOUR_MS, DAY_MS]))
    random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    times = START + step * np.sort(random.integers(0, draw(st.sampled_from([3, 40, 400])), size))
    order = draw(st.sampled_from(["time", "nearly", "reverse", "none"]))
    if order == "nearly":
        times += step * random.integers(-5, 5, size)
    elif order != "time":
        times = times[::-1] if order == "reverse" else random.permutation(times)
    amounts = random.integers(0, draw(st.sampled_from([3, 10_000])), size)
    users = np.where(random.random(size) < 0.1, random.integers(0, 4, size), HOT)
    return list(zip(users.tolist(), times.tolist(), amounts.tolist(), strict=True))


@given(hot_logs(), st.lists(st.integers(0, 150), max_size=4))
@settings(max_examples=80, deadline=None)
def test_a_hot_users_windows_are_exact_in_any_order(log: list[Transaction], cuts: list[int]) -> None:
    cuts = [min(cut, len(log)) for cut in cuts]

    np.testing.assert_array_equal(applied(log, cuts), brute_force(log))


@given(hot_logs(), st.integers(0, 150))
@settings(max_examples=40, deadline=None)
def test_what_follows_a_hot_batch_does_not_depend_on_how_it_was_applied(log: list[Transaction], cut: int) -> None:
    once, one_by_one = UserState(), UserState()
    applied(log, [min(cut, len(log))], once)
    applied(log, list(range(len(log))), one_by_one)

    assert once.taken_late() == one_by_one.taken_late()
    for name, array in one_by_one.arrays().items():
        np.testing.assert_array_equal(once.arrays()[name], array, err_msg=name)


def test_a_user_of_a_whole_batch_is_taken_alone_and_the_usual_few_are_not() -> None:
    usual = np.sort(np.random.default_rng(1).integers(0, 1_500, 2_000))
    hot = np.sort(np.append(np.zeros(300, np.int64), usual))
    times = np.arange(2_300)

    assert busy_rows(usual, times[:2_000], in_order=False) == []
    assert [row for row, _ in busy_rows(hot, times, in_order=True)] == [0]
    assert busy_rows(hot, times[::-1], in_order=True) == []


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=300), st.data())
@settings(max_examples=60, deadline=None)
def test_the_greatest_of_a_part_is_what_looking_through_it_finds(values: list[int], data: st.DataObject) -> None:
    bounds = data.draw(st.lists(st.tuples(*[st.integers(0, len(values) - 1)] * 2), min_size=1, max_size=20))
    parts = np.array([sorted(bound) for bound in bounds])

    found = RangeMax(np.array(values)).of(parts[:, 0], parts[:, 1])

    assert found.tolist() == [max(values[first : last + 1]) for first, last in parts.tolist()]


def hot_columns(size: int, seed: int, *, huge: bool = False) -> Columns:
    """Transactions of one user in order of time, with missing attributes and terminals."""
    random = np.random.default_rng(seed)
    times = np.sort(random.integers(0, 40 * DAY_MS, size))
    columns = Columns.of(
        [
            TransactionReceived(
                transaction_id=f"t{n}",
                occurred_at=np.datetime64(START + int(time), "ms").astype("datetime64[us]").item().astimezone(),
                amount=float(random.integers(0, 10**12 if huge else 500)) / 100,
                user_id="guest",
                terminal_id=None if random.random() < 0.2 else f"m{random.integers(0, 20)}",
                attributes={"v1": None if random.random() < 0.2 else float(random.normal())},
            )
            for n, time in enumerate(times.tolist())
        ],
        LAYOUT,
    )
    assert columns.users.tolist() == hash_ids(["guest"]).tolist() * size
    return columns


def of(columns: Columns, cuts: list[int]) -> np.ndarray:
    state = UserState(LAYOUT)
    parts = [columns.take(np.arange(first, last)) for first, last in pairwise([0, *cuts, len(columns)])]
    return np.concatenate([state.apply(p.users, p.times, p.minor, p.stored) for p in parts])


@pytest.mark.parametrize("huge", [False, True], ids=["amounts", "amounts whose squares need more than 64 bits"])
def test_windows_read_together_give_the_bytes_of_windows_read_one_by_one(
    huge: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = hot_columns(700, 3, huge=huge)
    one_by_one = of(columns, [100, 650])

    monkeypatch.setattr(extras, "_LONG", 0)
    monkeypatch.setattr(extras, "_MANY", 0)
    monkeypatch.setattr(extras, "_OVERLAP", 0)
    together = of(columns, [1, 2, 300])

    for number, name in enumerate(feature.name for feature in ALL):
        at = together.shape[1] - len(ALL) + number
        np.testing.assert_array_equal(together[:, at], one_by_one[:, at], err_msg=name)


def test_the_deviation_of_amounts_that_are_far_from_zero_is_exact() -> None:
    layout = FeatureLayout((), (Feature("std", "user", "std", DAY_MS),))
    n = 5_000
    amounts = 9_000_000_000_000 + np.arange(n) % 2
    state = UserState(layout)

    features = state.apply(np.full(n, HOT, np.uint64), START + np.arange(n), amounts, np.empty((0, n), np.int64))

    assert features[-1, -1] == pytest.approx(0.5 * np.sqrt(n / (n - 1)) / 100, rel=1e-15)
