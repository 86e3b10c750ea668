"""Event time is where most of the traffic is: one stray clock does not move it, a new year does."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from centinela.times import DAY_MS
from centinela_drift.decision.event_time import JUMP_MEMORY, STEP_USERS, EventTime, EventTimeSnapshot

REACH_MS = 2 * DAY_MS
PER_DAY = 600
START_MS = 20_000 * DAY_MS
YEAR_MS = 365 * DAY_MS


class Traffic:
    """An event time, and transactions in order of *per_day* a day by *users* users, one partition after another."""

    def __init__(self, *, users: int = 200, partitions: int = 4, per_day: int = PER_DAY) -> None:
        self.time = EventTime(REACH_MS)
        self.clock_ms = START_MS
        self._random = np.random.default_rng(5)
        self._users, self._partitions, self._step_ms = users, partitions, DAY_MS // per_day
        self.transactions = 0

    def run(self, count: int, batch: int = 10) -> None:
        """*count* transactions, in batches of one partition."""
        for begin in range(0, count, batch):
            times = self.clock_ms + self._step_ms * np.arange(min(batch, count - begin))
            users = self._random.integers(0, self._users, len(times)).astype(np.uint64)
            self.time.observe(int(self._random.integers(self._partitions)), times, users)
            self.clock_ms = int(times[-1]) + self._step_ms
            self.transactions += len(times)

    def stray(self, *users: int, ahead_ms: int = YEAR_MS, partition: int = 0) -> None:
        """One transaction of each of *users*, ahead of the traffic."""
        times = np.full(len(users), self.clock_ms + ahead_ms)
        self.time.observe(partition, times, np.array(users, np.uint64))

    @property
    def behind(self) -> float:
        """Days by which event time is behind the traffic."""
        assert self.time.newest_ms is not None
        return (self.clock_ms - self.time.newest_ms) / DAY_MS


def test_event_time_follows_ordinary_traffic_a_few_users_behind() -> None:
    traffic = Traffic()
    traffic.run(20)
    for _ in range(100):
        traffic.run(60)
        assert 0 < traffic.behind < 3 * STEP_USERS / PER_DAY
        assert traffic.time.ahead == 0


@pytest.mark.parametrize("ahead_ms", [DAY_MS, REACH_MS, YEAR_MS, 70 * YEAR_MS])
@pytest.mark.parametrize("count", [1, 5_000])
def test_one_record_and_one_user_do_not_move_it(ahead_ms: int, count: int) -> None:
    traffic = Traffic()
    traffic.run(600)
    traffic.stray(*[999] * count, ahead_ms=ahead_ms)
    traffic.run(600)
    assert 0 < traffic.behind < 0.1
    assert traffic.time.watermark_ms is not None
    assert traffic.clock_ms - traffic.time.watermark_ms < DAY_MS


def test_one_user_whose_clock_runs_ahead_step_by_step_does_not_pull_it_along() -> None:
    traffic = Traffic()
    traffic.run(600)
    for day in range(30):
        traffic.stray(999, ahead_ms=day * DAY_MS)
        traffic.run(20)
    assert traffic.behind < 0.1


@pytest.mark.parametrize("share", [0.01, 0.1, 0.2])
def test_a_minority_of_users_with_stray_clocks_does_not_move_it(share: float) -> None:
    traffic = Traffic(users=5_000)
    for number in range(200):
        traffic.run(100)
        strays = range(10_000 + number * 1_000, 10_000 + number * 1_000 + int(100 * share))
        traffic.stray(*strays, partition=number % 4)
    assert traffic.behind < 0.1
    assert traffic.time.ahead == int(200 * 100 * share)


def test_strays_that_come_together_at_the_end_of_a_large_batch_do_not_move_it() -> None:
    """A replay's batch has 8,000 transactions, and its panes come in order of event time."""
    traffic = Traffic(users=5_000)
    for _ in range(20):
        traffic.run(7_200, batch=150)
        traffic.stray(*range(10_000, 10_800))
    assert traffic.behind < 0.1


@pytest.mark.parametrize("jump_ms", [3 * DAY_MS, YEAR_MS])
def test_when_most_of_the_traffic_jumps_event_time_jumps_within_a_stated_number_of_transactions(jump_ms: int) -> None:
    traffic = Traffic()
    traffic.run(12_000)
    traffic.stray(900, 901, 902)
    traffic.run(3_000)
    traffic.clock_ms += jump_ms
    before = traffic.transactions
    while traffic.behind > 0.1:
        traffic.run(10)
    assert traffic.transactions - before <= JUMP_MEMORY * 0.75
    assert traffic.time.ahead == 0
    assert traffic.time.watermark_ms is not None
    traffic.run(200)
    assert traffic.clock_ms - traffic.time.watermark_ms < DAY_MS


def test_a_step_within_reach_needs_a_few_users_only() -> None:
    traffic = Traffic()
    traffic.run(600)
    traffic.clock_ms += REACH_MS - DAY_MS // 4
    traffic.run(3 * STEP_USERS)
    assert traffic.behind < 0.1


def test_requests_without_a_time_before_the_first_replay_do_not_set_it() -> None:
    traffic = Traffic()
    traffic.stray(1, 2, 3)
    assert traffic.time.newest_ms is None
    assert traffic.time.watermark_ms is None
    traffic.run(60)
    assert 0 <= traffic.behind < 0.1


def test_traffic_of_a_single_user_has_its_time() -> None:
    traffic = Traffic(users=1, partitions=1)
    traffic.run(600)
    assert 0 <= traffic.behind < 0.1
    traffic.run(100)
    traffic.stray(999)
    traffic.run(100)
    assert traffic.behind < 0.1


def test_the_watermark_is_the_slowest_partitions_unless_that_one_is_idle() -> None:
    def at(partition: int, day: float) -> None:
        time.observe(partition, np.full(30, START_MS + int(day * DAY_MS)), np.arange(30, dtype=np.uint64))

    time = EventTime(REACH_MS)
    assert time.watermark_ms is None
    at(1, 1.5)
    at(0, 3)
    assert time.watermark_ms == START_MS + int(1.5 * DAY_MS)
    at(0, 3.6)
    assert time.watermark_ms == START_MS + int(3.6 * DAY_MS)
    at(1, 3.2)
    assert time.watermark_ms == START_MS + int(3.2 * DAY_MS)


def test_it_goes_on_from_a_snapshot_as_if_it_had_not_stopped() -> None:
    whole, broken = Traffic(), Traffic()
    for traffic in (whole, broken):
        traffic.run(1_000)
        traffic.stray(900, 901)
        traffic.clock_ms += YEAR_MS
    for _ in range(300):
        content, reached = broken.time.snapshot()
        stored = msgspec.json.decode(msgspec.json.encode(content), type=EventTimeSnapshot)
        broken.time = EventTime(REACH_MS)
        broken.time.restore(stored, reached)
        for traffic in (whole, broken):
            traffic.run(10)
        assert broken.time.snapshot() == whole.time.snapshot()
    assert whole.behind < 0.1
