"""Terminal windows against an independent computation, whatever the order in which activity and labels arrive."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centinela.features.keys import MISSING_ID
from centinela.features.state.terminals import HORIZON_MS, LABEL_MARGIN_MS, TerminalState
from centinela.times import DAY_MS, HOUR_MS

START = 1_522_540_800_000
Activity = tuple[int, int, int]
"""Terminal, time in ms, transaction."""
Label = tuple[int, bool, int, int]
"""Transaction, outcome, time of the transaction, time of the report."""


def brute_force(activity: list[Activity], labels: list[Label], terminal: int, time: int) -> list[float]:
    if terminal == MISSING_ID:
        return [float("nan")] * 6
    row: list[float] = []
    latest: dict[int, tuple[int, bool]] = {}
    taken: dict[int, int] = {}
    for i, is_fraud, _, reported in labels:
        if reported >= taken.get(i, reported):
            taken[i] = reported
            if reported + LABEL_MARGIN_MS <= time:
                latest[i] = reported, is_fraud
    known = {i for i, (_, is_fraud) in latest.items() if is_fraud}
    for days in (1, 7, 30):
        inside = [i for at, t, i in activity if at == terminal and time - (7 + days) * DAY_MS < t <= time - 7 * DAY_MS]
        row += [len(inside), sum(i in known for i in inside) / len(inside) if inside else 0.0]
    return row


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Activity], list[Label]]:
    size = draw(st.integers(0, 40))
    days = draw(st.lists(st.integers(0, 40 * 3), min_size=size, max_size=size))
    terminals = draw(st.lists(st.integers(1, 3), min_size=size, max_size=size))
    activity = [
        (terminal, START + day * 8 * HOUR_MS, number + 1)
        for number, (terminal, day) in enumerate(zip(terminals, days, strict=True))
    ]
    labels = [
        (i, draw(st.booleans()), time, time + draw(st.integers(0, 20)) * DAY_MS)
        for _, time, i in activity
        for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 4])))
    ]
    return activity, draw(st.permutations(labels))


def mixed(data: st.DataObject, activity: list[Activity], labels: list[Label]) -> list[Activity | Label]:
    """Activity and labels shuffled into each other: activity in any order, the reports on one transaction in theirs."""
    waiting: dict[int, list[Label]] = {}
    for label in labels:
        waiting.setdefault(label[0], []).append(label)
    slots: list[Activity | int] = [*activity, *(label[0] for label in labels)]
    return [waiting[slot].pop(0) if isinstance(slot, int) else slot for slot in data.draw(st.permutations(slots))]


def apply(state: TerminalState, piece: Activity | Label) -> None:
    if len(piece) == 3:
        terminal, time, i = piece
        state.apply_activity(np.array([terminal], np.uint64), np.array([time]), np.array([i], np.uint64))
    else:
        i, is_fraud, time, reported = piece
        state.apply_labels(np.array([i], np.uint64), np.array([is_fraud]), np.array([time]), np.array([reported]))


def apply_all(state: TerminalState, activity: list[Activity], labels: list[Label]) -> None:
    if activity:
        terminals, times, ids = zip(*activity, strict=True)
        state.apply_activity(np.array(terminals, np.uint64), np.array(times), np.array(ids, np.uint64))
    if labels:
        ids, is_fraud, times, reported = zip(*labels, strict=True)
        state.apply_labels(np.array(ids, np.uint64), np.array(is_fraud), np.array(times), np.array(reported))


QUESTIONS = [
    (terminal, START + day * DAY_MS) for terminal in (MISSING_ID, 1, 2, 3, 99) for day in (0, 7, 8, 20, 37, 44)
]


def answers(state: TerminalState) -> np.ndarray:
    return state.read(np.array([q[0] for q in QUESTIONS], np.uint64), np.array([q[1] for q in QUESTIONS]))


@given(histories(), st.data())
@settings(max_examples=150, deadline=None)
def test_windows_equal_an_independent_computation_in_any_order_of_arrival(
    history: tuple[list[Activity], list[Label]],
    data: st.DataObject,
) -> None:
    activity, labels = history
    state = TerminalState()

    for piece in mixed(data, activity, labels):
        apply(state, piece)

    np.testing.assert_array_equal(answers(state), [brute_force(activity, labels, *question) for question in QUESTIONS])
    assert state.pending == 0


@given(histories())
@settings(max_examples=100, deadline=None)
def test_what_is_read_again_changes_nothing(history: tuple[list[Activity], list[Label]]) -> None:
    once, twice = TerminalState(), TerminalState()
    apply_all(once, *history)
    apply_all(twice, *history)

    apply_all(twice, *history)

    np.testing.assert_array_equal(answers(twice), answers(once))


@given(histories(), histories())
@settings(max_examples=100, deadline=None)
def test_a_state_restored_from_its_arrays_goes_on_as_if_nothing_had_happened(
    first: tuple[list[Activity], list[Label]],
    then: tuple[list[Activity], list[Label]],
) -> None:
    activity = [(terminal, time, i + 1000) for terminal, time, i in then[0]]
    labels = [(i + 1000, fraud, at, reported) for i, fraud, at, reported in then[1]]
    labels += [(i + 7, fraud, at, reported) for i, fraud, at, reported in first[1]]
    state = TerminalState()
    apply_all(state, first[0], [])
    apply_all(state, [], labels)

    restored = TerminalState.from_arrays(state.arrays())
    for one in (state, restored):
        apply_all(one, activity, first[1])

    np.testing.assert_array_equal(answers(restored), answers(state))
    assert restored.pending == state.pending


def test_a_label_counts_from_an_hour_after_its_report_and_not_before() -> None:
    state = TerminalState()
    apply_all(state, [(1, START, 1), (1, START, 2)], [(1, True, START, START + 9 * DAY_MS)])
    at = START + 9 * DAY_MS + LABEL_MARGIN_MS

    before, after = state.read(np.array([1, 1], np.uint64), np.array([at - 1, at]))

    assert before[4:].tolist() == [2, 0.0]
    assert after[4:].tolist() == [2, 0.5]


def test_a_window_ends_seven_days_before_and_is_open_at_its_start() -> None:
    state = TerminalState()
    apply_all(state, [(1, START, 1)], [])
    times = np.array([START + 7 * DAY_MS - 1, START + 7 * DAY_MS, START + 8 * DAY_MS - 1, START + 8 * DAY_MS])

    assert state.read(np.full(4, 1, np.uint64), times)[:, 0].tolist() == [0, 1, 1, 0]


def test_the_first_of_two_fraud_reports_counts_and_genuine_transactions_do_not() -> None:
    state = TerminalState()
    apply_all(
        state,
        [(1, START, 1), (1, START, 2)],
        [
            (2, False, START, START),
            (1, True, START, START + 8 * DAY_MS),
            (1, True, START, START + 20 * DAY_MS),
        ],
    )

    assert state.read(np.array([1], np.uint64), np.array([START + 9 * DAY_MS]))[0, 4:].tolist() == [2, 0.5]


@pytest.mark.parametrize("labels_first", [True, False])
def test_a_corrected_label_is_followed_both_ways_from_an_hour_after_each_report(labels_first: bool) -> None:
    state = TerminalState()
    reports = [
        (1, True, START, START + 10 * DAY_MS),
        (1, False, START, START + 20 * DAY_MS),
        (1, True, START, START + 30 * DAY_MS),
    ]
    if labels_first:
        apply_all(state, [], reports)
    apply_all(state, [(1, START, 1)], [] if labels_first else reports)
    at = np.array([START + days * DAY_MS + LABEL_MARGIN_MS - early for days in (10, 20, 30) for early in (1, 0)])

    assert state.read(np.full(6, 1, np.uint64), at)[:, 5].tolist() == [0, 1, 1, 0, 0, 1]


@pytest.mark.parametrize("labels_first", [True, False])
def test_a_report_older_than_one_already_taken_is_passed_over(labels_first: bool) -> None:
    state = TerminalState()
    reports = [(1, False, START, START + 12 * DAY_MS), (1, True, START, START + 10 * DAY_MS)]
    if labels_first:
        apply_all(state, [], reports)
    apply_all(state, [(1, START, 1)], [] if labels_first else reports)

    assert state.read(np.full(2, 1, np.uint64), START + np.array([11, 13]) * DAY_MS)[:, 5].tolist() == [0, 0]


def test_of_two_reports_at_the_same_time_the_later_in_the_log_holds() -> None:
    state = TerminalState()
    reported = START + 9 * DAY_MS
    apply_all(
        state,
        [(1, START, 1), (1, START, 2)],
        [
            (1, True, START, reported),
            (1, False, START, reported),
            (2, False, START, reported),
            (2, True, START, reported),
        ],
    )

    assert state.read(np.array([1], np.uint64), np.array([START + 12 * DAY_MS]))[0, 5] == 0.5


def test_reports_read_months_before_their_activity_wait_for_it_and_are_forgotten_past_its_reach() -> None:
    state = TerminalState()
    days = range(0, 300, 10)
    apply_all(state, [], [(day + 1, True, START + day * DAY_MS, START + (day + 1) * DAY_MS) for day in days])
    for day in days[:-1]:
        apply_all(
            state, [(1, START + day * DAY_MS, day + 1)] if day % 20 else [(2, START + day * DAY_MS, 1000 + day)], []
        )

    assert state.read(np.array([1], np.uint64), np.array([START + 287 * DAY_MS + HOUR_MS]))[0, 4:].tolist() == [1, 1.0]
    assert 1 <= state.pending < 12


def test_a_transaction_that_its_label_preceded_by_far_is_recognised_when_it_is_read_again() -> None:
    state = TerminalState()
    day = HORIZON_MS // DAY_MS
    late = [(1, START + day * DAY_MS, 1)]
    apply_all(state, [], [(1, True, late[0][1], late[0][1])])
    for activity in ([(2, START, 2)], late, [(2, START + (day + 1) * DAY_MS, 3)], late):
        apply_all(state, activity, [])

    assert state.read(np.array([1], np.uint64), np.array([late[0][1] + 10 * DAY_MS]))[0, 4:].tolist() == [1, 1.0]


@pytest.mark.parametrize("skew_days", [0, 6])
def test_a_year_of_activity_from_partitions_apart_keeps_windows_exact_and_memory_bounded(skew_days: int) -> None:
    random = np.random.default_rng(3)
    n = 30_000
    times = np.sort(random.integers(0, 365 * DAY_MS, n)) + START
    terminals = random.integers(1, 60, n)
    late = np.arange(n) % 2 == 0
    order = np.argsort(times + np.where(late, skew_days * DAY_MS, 0), kind="stable")
    activity = [(int(terminals[k]), int(times[k]), int(k) + 1) for k in order]
    labels = [(i, True, t, t + 6 * DAY_MS) for _, t, i in activity if i % 50 == 0]
    state = TerminalState()

    for first in range(0, n, 500):
        part = activity[first : first + 500]
        apply_all(
            state,
            part,
            [label for label in labels if activity[max(first - 500, 0)][1] <= label[2] < part[0][1]] if first else [],
        )
    apply_all(state, [], labels)

    end = int(times[-1])
    for terminal, time in ((1, end), (2, end - 6 * DAY_MS), (30, end - 3 * DAY_MS)):
        got = state.read(np.array([terminal], np.uint64), np.array([time]))[0]
        np.testing.assert_array_equal(got, brute_force(activity, labels, terminal, time))
    assert len(state.arrays()["times"]) < n * 60 / 365
    assert len(state.arrays()["current_ids"]) + len(state.arrays()["previous_ids"]) < n * 100 / 365


@pytest.mark.parametrize("strays", [[45], [60], [45, 60, 75], range(40, 100)])
def test_a_clock_far_ahead_on_another_terminal_changes_no_window(strays: list[int]) -> None:
    """Ids and waiting reports are dropped by how far event time is, and one clock does not say that for all."""

    def served(strays: list[int]) -> np.ndarray:
        random, state, due, read = np.random.default_rng(1), TerminalState(), [], []
        for day in range(100):
            times = np.sort(START + random.integers(day * DAY_MS, (day + 1) * DAY_MS, 200))
            terminals, ids = random.integers(1, 51, 200).astype(np.uint64), np.arange(day * 200 + 1, day * 200 + 201)
            reported = times + random.integers(DAY_MS, 7 * DAY_MS, 200)
            due += [row for row in zip(reported, ids, times, random.random(200) < 0.05, strict=True) if row[3]]
            read.append(state.read(terminals, times))
            state.apply_activity(terminals, times, ids.astype(np.uint64))
            if day in strays:
                ahead = START + (day + 300) * DAY_MS
                state.apply_activity(np.array([999], np.uint64), np.array([ahead]), np.array([10**9 + day], np.uint64))
            now = START + (day + 1) * DAY_MS
            for at, i, time, _ in [row for row in due if row[0] <= now]:
                state.apply_labels(np.array([i], np.uint64), np.array([True]), np.array([time]), np.array([at]))
            due = [row for row in due if row[0] > now]
        assert state.pending == 0
        return np.concatenate(read)

    np.testing.assert_array_equal(served(strays), served([]))
