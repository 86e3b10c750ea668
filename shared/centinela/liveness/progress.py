"""Whether a consumer makes progress: it is fed with offsets, and asked whether it is stuck. No clock, no thread, no
Kafka.

A consumer is stuck where its thread has not called ``beat`` for a while, whatever it waits for: every wait in a loop is
bounded, and long work calls ``report_progress`` between its steps. It is also stuck where it calls ``beat``, but
records wait in a partition whose offset does not move: unless it says that it waits (``wait``), or its handler defers
the partition again each time it is delivered (``PartitionProgress.deferrals``). The time that it works on other records
(``at_work``) does not count against a partition, however long that takes.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

from centinela.clock import Clock, SystemClock

_CURRENT: ContextVar[Progress | None] = ContextVar("progress", default=None)


class Patience(NamedTuple):
    """Seconds. ``stuck_s``: without progress for this long a consumer is stuck. ``exit_s``: stuck for this long the
    process ends; None: never."""

    stuck_s: float = 120.0
    exit_s: float | None = None


PATIENCE = Patience()


class PartitionProgress(NamedTuple):
    """The next *offset* to deliver of a partition, the *end* of its log, and how often its handler deferred it."""

    offset: int
    end: int
    deferrals: int = 0

    @property
    def lag(self) -> int:
        return max(0, self.end - self.offset)


@dataclass
class _Observed:
    progress: PartitionProgress
    since: float


class Progress:
    """When a consumer last made progress. Thread-safe.

    Args:
        stuck_s: Seconds without progress after which it is stuck.
        now: Seconds of a monotonic clock, as everywhere here.
    """

    def __init__(self, stuck_s: float, now: float) -> None:
        self._stuck_s = stuck_s
        self._lock = threading.Lock()
        self._beat = now
        self._observed: dict[Hashable, _Observed] = {}
        self._at_work_since: float | None = None

    def beat(self, now: float) -> None:
        """The consumer's thread is alive."""
        with self._lock:
            self._beat = now

    def observe(self, partitions: Mapping[Any, PartitionProgress], now: float) -> None:
        """All *partitions* that are read now. One that moved, was deferred again, or has no lag, makes progress."""
        with self._lock:
            before = self._observed
            self._observed = {}
            for partition, progress in partitions.items():
                last = before.get(partition)
                moved = last is None or (progress.offset, progress.deferrals) != (
                    last.progress.offset,
                    last.progress.deferrals,
                )
                since = now if last is None or moved or not progress.lag else last.since
                self._observed[partition] = _Observed(progress, since)

    def wait(self, now: float) -> None:
        """The consumer waits for something else: its offsets need not move meanwhile. Its thread must still call
        ``beat``."""
        with self._lock:
            for observed in self._observed.values():
                observed.since = now

    @contextmanager
    def at_work(self, clock: Clock) -> Iterator[None]:
        """The consumer works on records: no other partition can move meanwhile. Its thread must still call ``beat``."""
        started = clock.monotonic()
        with self._lock:
            self._beat = started
            self._at_work_since = started
        try:
            yield
        finally:
            now = clock.monotonic()
            with self._lock:
                self._beat = now
                self._at_work_since = None
                for observed in self._observed.values():
                    observed.since += now - started

    def restart(self, now: float) -> None:
        """Nothing was observed for a while (the process was frozen): count from *now*."""
        self.wait(now)
        self.beat(now)

    def stuck(self, now: float) -> str | None:
        """Why the consumer is stuck, in words; None where it is not."""
        with self._lock:
            if now - self._beat > self._stuck_s:
                return f"its thread has made no progress for {now - self._beat:.0f} s"
            until = now if self._at_work_since is None else self._at_work_since
            for partition, observed in self._observed.items():
                if observed.progress.lag and until - observed.since > self._stuck_s:
                    return (
                        f"{_name(partition)} has been at offset {observed.progress.offset} of {observed.progress.end}"
                        f" for {until - observed.since:.0f} s"
                    )
        return None

    def bind_to_thread(self) -> None:
        """From now on ``report_progress`` in this thread is a beat of this."""
        _CURRENT.set(self)


def report_progress(clock: Clock | None = None) -> None:
    """For work that takes long by nature: called between its steps, it shows that the thread is not stuck."""
    if (progress := _CURRENT.get()) is not None:
        progress.beat((clock or SystemClock()).monotonic())


def _name(partition: Hashable) -> str:
    return "-".join(map(str, partition)) if isinstance(partition, tuple) else str(partition)
