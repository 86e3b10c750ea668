"""Terminals with many frauds, and reports that wait in great number: the same windows at a bounded cost."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centinela.features.state import known_changes, terminals
from centinela.features.state.terminals import TerminalState
from centinela.times import DAY_MS, HOUR_MS

START = 1_522_540_800_000


def with_frauds(seed: int, transactions: int) -> TerminalState:
    """Two terminals over 50 days, most transactions reported within 20 days, some twice."""
    random = np.random.default_rng(seed)
    ids = np.arange(1, transactions + 1).astype(np.uint64)
    times = START + np.sort(random.integers(0, 50 * DAY_MS, transactions))
    state = TerminalState()
    state.apply_activity(random.integers(1, 3, transactions).astype(np.uint64), times, ids)
    for _ in range(2):
        some = np.flatnonzero(random.random(transactions) < 0.6)
        reported = times[some] + random.integers(0, 20, len(some)) * DAY_MS
        state.apply_labels(ids[some], random.random(len(some)) < 0.7, times[some], reported)
    return state


@given(st.integers(0, 1 << 32), st.integers(1, 60), st.booleans())
@settings(max_examples=60, deadline=None)
def test_many_frauds_read_together_give_what_each_looked_at_gives(seed: int, queries: int, in_order: bool) -> None:
    state, random = with_frauds(seed, 80), np.random.default_rng(seed)
    times = START + random.integers(5 * DAY_MS, 80 * DAY_MS, queries) // HOUR_MS * HOUR_MS
    rows = random.integers(1, 4, queries).astype(np.uint64), np.sort(times) if in_order else times
    expected = state.read(*rows)

    with patch.object(terminals, "_HOT", 1), patch.object(known_changes, "_GROUP", 7):
        np.testing.assert_array_equal(state.read(*rows), expected)


def test_of_too_many_reports_that_wait_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminals, "_MOST_WAITING", 3)
    ids, times = np.arange(1, 6).astype(np.uint64), START + np.arange(5)
    state = TerminalState()
    state.apply_labels(ids, np.ones(5, bool), times, times)
    assert state.pending == 3

    state.apply_activity(np.array([1, 1, 2, 2, 2], np.uint64), times, ids)

    later = np.full(2, START + 8 * DAY_MS)
    assert state.read(np.array([1, 2], np.uint64), later)[:, 5].tolist() == [0.0, 1.0]
