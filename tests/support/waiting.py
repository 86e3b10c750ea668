"""Waiting on a condition: with a deadline, or for a start as long as it makes progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from centinela_local.processes.startup import StartupWait, activity


def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    """Whether *condition* holds within *timeout_s*; asked again and again."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def until(condition: Callable[[], bool], what: str, deadline_s: float = 60.0) -> None:
    """Wait for *condition*; fails naming *what* where it does not hold within *deadline_s*."""
    assert eventually(condition, deadline_s), f"not within {deadline_s:g} s: {what}"


def until_started(condition: Callable[[], bool], what: str, *, pids: Iterable[int], logs: Iterable[Path]) -> None:
    """Wait for *condition*; fails naming *what* where the processes *pids* make no progress, or take too long."""
    processes = list(pids)
    files = list(logs)
    wait = StartupWait(lambda: activity(processes, files))
    while not condition():
        problem = wait.problem()
        assert problem is None, f"{what}: {problem}"
        time.sleep(0.05)
