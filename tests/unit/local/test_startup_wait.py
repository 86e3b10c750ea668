"""A start is waited for while it makes progress, and not for ever."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from centinela_local.errors import StartFailed
from centinela_local.processes.background import BackgroundProcess
from centinela_local.processes.startup import StartupWait, activity


class Start:
    """A start whose progress and time a test controls."""

    def __init__(self) -> None:
        self.now = 0.0
        self.done = 0
        self.wait = StartupWait(lambda: self.done, stall_s=10, limit_s=100, clock=lambda: self.now)

    def problem_after(self, seconds: float, *, progress: bool) -> str | None:
        self.now += seconds
        self.done += progress
        return self.wait.problem()


def test_a_slow_start_is_waited_for_as_long_as_it_makes_progress() -> None:
    start = Start()
    assert [start.problem_after(9, progress=True) for _ in range(11)] == [None] * 11


def test_a_start_without_progress_is_given_up() -> None:
    start = Start()
    assert start.problem_after(9, progress=True) is None
    assert start.problem_after(9, progress=False) is None
    assert start.problem_after(2, progress=False) == "made no progress for 10 s"


def test_a_start_that_is_busy_for_ever_is_given_up_at_the_limit() -> None:
    start = Start()
    problems = [start.problem_after(9, progress=True) for _ in range(12)]
    assert problems == [None] * 11 + ["was not ready within 100 s"]


def test_activity_grows_with_cpu_time_and_with_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    cpu_before, size_before = activity([os.getpid()], [log])
    log.write_text("started\n")
    while (after := activity([os.getpid()], [log]))[0] == cpu_before:
        sum(range(100_000))
    assert after[0] > cpu_before
    assert (size_before, after[1]) == (0, len("started\n"))


def test_a_process_that_is_gone_has_no_activity(tmp_path: Path) -> None:
    assert activity([2**22 + 1], [tmp_path / "missing"]) == (0, 0)


def test_a_process_that_hangs_is_stopped_and_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-c", "import time; print('asleep', flush=True); time.sleep(300)"]
    sleeper = BackgroundProcess("sleeper", command, log=tmp_path / "log", answers=lambda: False, stall_s=2)
    with pytest.raises(StartFailed, match=r"sleeper made no progress for 2 s:\nasleep"):
        sleeper.start()


def test_a_process_that_ends_fails_its_start_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-c", "raise SystemExit('no such setting')"]
    broken = BackgroundProcess("broken", command, log=tmp_path / "log", answers=lambda: False)
    with pytest.raises(StartFailed, match=r"broken ended with code 1:\nno such setting"):
        broken.start()
