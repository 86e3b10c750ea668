"""Waiting for a start: as long as it makes progress, within a generous last limit.

A fixed number of seconds is too short on a busy machine, and too long for a process that hangs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

import psutil

STALL_S = 90.0
LIMIT_S = 900.0
_LOOK_EVERY_S = 1.0


class StartupWait:
    """Says when it is pointless to wait any longer.

    Args:
        progress: A value that changes while the start makes progress, such as ``activity`` of the processes.
        stall_s: Longest wait without any change of it.
        limit_s: Longest wait in all.
    """

    def __init__(
        self,
        progress: Callable[[], Hashable],
        *,
        stall_s: float = STALL_S,
        limit_s: float = LIMIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress = progress
        self._stall_s = stall_s
        self._limit_s = limit_s
        self._clock = clock
        self._started = clock()
        self._changed = self._started
        self._looked = self._started
        self._last = progress()

    def problem(self) -> str | None:
        """What is wrong, to follow a process's name in a message; None while waiting makes sense."""
        now = self._clock()
        if now - self._looked >= _LOOK_EVERY_S:
            self._looked = now
            current = self._progress()
            if current != self._last:
                self._last = current
                self._changed = now
        if now - self._started > self._limit_s:
            return f"was not ready within {self._limit_s:g} s"
        if now - self._changed > self._stall_s:
            return f"made no progress for {self._stall_s:g} s"
        return None


def activity(pids: Iterable[int], logs: Iterable[Path]) -> tuple[float, int]:
    """CPU seconds used by the processes *pids* and their descendants, and the size of *logs*: both grow while something
    happens."""
    cpu_s = sum(_cpu_s(process) for pid in pids for process in _family(pid))
    size = 0
    for log in logs:
        with contextlib.suppress(OSError):
            size += log.stat().st_size
    return cpu_s, size


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
