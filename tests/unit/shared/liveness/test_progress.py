"""When a consumer counts as stuck, and what it may wait for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from centinela.liveness.health import Health
from centinela.liveness.progress import PartitionProgress, Patience, Progress, report_progress
from centinela.liveness.watchdog import Watchdog
from centinela.testing.clock import FixedClock
from centinela.web.ops import health_payload, ready_payload

P0, P1 = ("transactions", 0), ("transactions", 1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def rounds(progress: Progress, seconds: range, partitions: dict[tuple[str, int], PartitionProgress]) -> None:
    """The consumer calls ``beat`` every ten seconds, and its offsets stay as they are."""
    for now in seconds:
        progress.beat(now)
        progress.observe(partitions, now)


def test_an_offset_that_does_not_move_though_records_wait_is_stuck() -> None:
    progress = Progress(60, 0)
    rounds(progress, range(0, 61, 10), {P0: PartitionProgress(5, 9)})
    assert progress.stuck(60) is None
    rounds(progress, range(70, 71), {P0: PartitionProgress(5, 9)})
    assert progress.stuck(70) == "transactions-0 has been at offset 5 of 9 for 70 s"


@pytest.mark.parametrize(
    "last",
    [PartitionProgress(6, 9), PartitionProgress(5, 5), PartitionProgress(5, 9, deferrals=1)],
    ids=["moved", "no lag", "deferred again"],
)
def test_a_partition_that_makes_progress_is_not_stuck(last: PartitionProgress) -> None:
    progress = Progress(60, 0)
    rounds(progress, range(0, 61, 10), {P0: PartitionProgress(5, 9)})
    rounds(progress, range(65, 66), {P0: last})
    assert progress.stuck(120) is None


def test_one_partition_without_progress_is_not_hidden_by_others_that_move() -> None:
    progress = Progress(60, 0)
    for now in range(0, 80, 10):
        rounds(progress, range(now, now + 1), {P0: PartitionProgress(now, now + 100), P1: PartitionProgress(3, 4)})
    assert progress.stuck(70) == "transactions-1 has been at offset 3 of 4 for 70 s"


def test_work_on_other_records_does_not_count_against_a_partition_however_long_it_takes() -> None:
    progress, clock = Progress(60, 0), FixedClock(NOW)
    waiting = {P0: PartitionProgress(100, 900), P1: PartitionProgress(3, 4)}
    progress.observe(waiting, 0)
    for _ in range(20):
        with progress.at_work(clock):
            clock.set(clock.now() + timedelta(seconds=50))
            assert progress.stuck(clock.monotonic()) is None
        progress.observe(waiting, clock.monotonic())
    assert progress.stuck(clock.monotonic()) is None
    assert progress.stuck(clock.monotonic() + 59) is None
    progress.beat(clock.monotonic() + 61)
    assert progress.stuck(clock.monotonic() + 61) == "transactions-0 has been at offset 100 of 900 for 61 s"


def test_one_batch_without_a_step_is_stuck_and_one_with_steps_is_not() -> None:
    progress, clock = Progress(60, 0), FixedClock(NOW)
    progress.bind_to_thread()
    with progress.at_work(clock):
        for _ in range(5):
            clock.set(clock.now() + timedelta(seconds=50))
            report_progress(clock)
            assert progress.stuck(clock.monotonic()) is None
        clock.set(clock.now() + timedelta(seconds=61))
        assert progress.stuck(clock.monotonic()) == "its thread has made no progress for 61 s"


def test_a_partition_that_went_to_another_member_is_forgotten() -> None:
    progress = Progress(60, 0)
    rounds(progress, range(0, 61, 10), {P0: PartitionProgress(5, 9)})
    rounds(progress, range(70, 200, 10), {})
    assert progress.stuck(190) is None


def test_lag_that_only_just_arose_is_not_stuck_although_the_offset_is_old() -> None:
    progress = Progress(60, 0)
    rounds(progress, range(0, 600, 10), {P0: PartitionProgress(5, 5)})
    rounds(progress, range(600, 601), {P0: PartitionProgress(5, 6)})
    assert progress.stuck(640) is None


def test_a_thread_that_does_not_beat_is_stuck_with_lag_or_without() -> None:
    progress = Progress(60, 0)
    progress.beat(10)
    assert progress.stuck(70) is None
    assert progress.stuck(71) == "its thread has made no progress for 61 s"


def test_waiting_excuses_offsets_but_not_a_thread_that_hangs() -> None:
    progress = Progress(60, 0)
    rounds(progress, range(0, 61, 10), {P0: PartitionProgress(5, 9)})
    progress.wait(100)
    progress.beat(100)
    assert progress.stuck(160) is None
    progress.wait(170)
    assert progress.stuck(170) == "its thread has made no progress for 70 s"


def test_long_work_reports_progress() -> None:
    progress, clock = Progress(60, 0), FixedClock(NOW)
    clock.set(NOW + timedelta(seconds=50))
    report_progress(clock)
    assert progress.stuck(61) is not None
    progress.bind_to_thread()
    report_progress(clock)
    assert progress.stuck(110) is None
    assert progress.stuck(111) is not None


class Watched:
    """A watchdog on a clock that stands still, looked at by hand."""

    def __init__(self, exit_s: float | None = None) -> None:
        self.clock, self.health, self.ended = FixedClock(NOW), Health(), list[int]()
        self.progress = Progress(20, 0)
        self.dog = Watchdog(
            "stream", self.progress, self.health, Patience(20, exit_s), clock=self.clock, end=self.ended.append
        )

    def after(self, seconds: int, *, beats: bool = False) -> list[dict[str, object]]:
        """Let time pass in steps of two seconds, looking each time; what was logged."""
        with capture_logs() as logs:
            for _ in range(seconds // 2):
                self.clock.set(self.clock.now() + timedelta(seconds=2))
                if beats:
                    self.progress.beat(self.clock.monotonic())
                self.dog.check()
        return [dict(entry) for entry in logs]


def test_a_stuck_consumer_is_not_live_and_its_stacks_are_logged_once_an_episode() -> None:
    watched = Watched()
    logged = watched.after(40)

    [told] = logged
    assert (told["event"], told["consumer"]) == ("consumer.stuck", "stream")
    stacks = told["stacks"]
    assert isinstance(stacks, dict)
    assert any("test_a_stuck_consumer" in line for stack in stacks.values() for line in stack)
    status, body = health_payload(watched.health)
    assert (status, body["live"], body["status"]) == (503, False, "unhealthy")
    assert body["reason"] == "stream is stuck: its thread has made no progress for 22 s"
    assert ready_payload(watched.health)[0] == 503

    assert [entry["event"] for entry in watched.after(10, beats=True)] == ["consumer.recovered"]
    assert health_payload(watched.health) == (200, {"status": "healthy"})
    assert [entry["event"] for entry in watched.after(40)] == ["consumer.stuck"]


def test_a_process_that_stays_stuck_ends_with_a_clear_last_line() -> None:
    watched = Watched(exit_s=10)
    watched.after(30)
    assert watched.ended == []
    logged = watched.after(4)
    assert watched.ended[0] == 1
    assert logged[-1] == {
        "event": "process.failed",
        "error": "ConsumerStuck",
        "detail": "stream: its thread has made no progress for 34 s",
        "log_level": "error",
    }


def test_what_health_says_is_waited_for_excuses_offsets() -> None:
    watched = Watched()
    watched.progress.observe({P0: PartitionProgress(1, 9)}, 0)
    watched.health.wait_for("mlflow", "does not answer")
    assert watched.after(100, beats=True) == []
    watched.health.met("mlflow")
    assert [entry["event"] for entry in watched.after(30, beats=True)] == ["consumer.stuck"]


def test_a_process_that_was_frozen_is_not_taken_for_stuck_when_it_goes_on() -> None:
    watched = Watched()
    watched.progress.observe({P0: PartitionProgress(1, 9)}, 0)
    watched.clock.set(NOW + timedelta(hours=1))
    assert watched.after(10) == []
    assert watched.health.live
