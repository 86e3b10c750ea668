"""Checks a consumer's progress from a thread of its own, reports it to health and the log, and ends a process that
stays stuck."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType

import structlog

from centinela.clock import Clock, SystemClock
from centinela.liveness.health import Health
from centinela.liveness.progress import Patience, Progress

_log = structlog.get_logger(__name__)
_CHECKS = 10
"""Checks within ``stuck_s``, as long as they are between the two intervals that follow."""
_MIN_INTERVAL_S = 0.05
_MAX_INTERVAL_S = 5.0
_FROZEN = 3
"""A check that comes this many intervals late shows that the process was frozen, not that the consumer is stuck."""


class Watchdog:
    """While its context is open, a consumer that is stuck makes *health* not live, with the stacks of all threads
    logged once an episode.

    Args:
        name: What health and the log call the consumer.
        health: While it has an unmet condition, the consumer need not make progress.
        end: Ends the process; called when it is stuck for ``patience.exit_s``.
    """

    def __init__(
        self,
        name: str,
        progress: Progress,
        health: Health,
        patience: Patience,
        *,
        clock: Clock | None = None,
        end: Callable[[int], None] = os._exit,
    ) -> None:
        self._name = name
        self._progress = progress
        self._health = health
        self._patience = patience
        self._end = end
        self._clock = clock or SystemClock()
        self._interval_s = min(_MAX_INTERVAL_S, max(_MIN_INTERVAL_S, patience.stuck_s / _CHECKS))
        self._checked_at = self._clock.monotonic()
        self._stuck_since: float | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"watchdog-{name}", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._closed.set()
        self._health.not_stuck(self._name)

    def check(self) -> None:
        """Check once."""
        now = self._clock.monotonic()
        if now - self._checked_at > _FROZEN * self._interval_s:
            self._progress.restart(now)
        self._checked_at = now
        if self._health.unmet():
            self._progress.wait(now)
        reason = self._progress.stuck(now)
        if reason is None:
            self._not_stuck(now)
        elif self._stuck_since is None:
            self._stuck_since = now
            self._health.stuck(self._name, reason)
            _log.error("consumer.stuck", consumer=self._name, reason=reason, stacks=stacks())
        elif self._patience.exit_s is not None and now - self._stuck_since >= self._patience.exit_s:
            _log.error("process.failed", error="ConsumerStuck", detail=f"{self._name}: {reason}")
            self._end(1)

    def _not_stuck(self, now: float) -> None:
        if self._stuck_since is not None:
            _log.info("consumer.recovered", consumer=self._name, stuck_s=round(now - self._stuck_since, 1))
            self._stuck_since = None
            self._health.not_stuck(self._name)

    def _watch(self) -> None:
        while not self._closed.wait(self._interval_s):
            self.check()


def stacks() -> dict[str, list[str]]:
    """The call stack of each thread, by its name: innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        f"{names.get(number, 'unknown')} ({number})": [
            f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_stack(frame)
        ]
        for number, frame in sys._current_frames().items()
    }
