"""How fast records are sent: at a rate, at a speed of event time, both, or as fast as possible."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from centinela.clock import Clock

_TICK_S = 0.05
_UNPACED_ROWS = 2_000


class Pacer:
    """Cuts a stream into slices and waits until each is due. Catches up after a stall.

    Args:
        wait: Waits that many seconds; returns True where the run should stop (``threading.Event.wait``).
        rate: Most records a second; None for no limit.
        speedup: Seconds of event time in a second; None to ignore event time.
    """

    def __init__(
        self, clock: Clock, wait: Callable[[float], bool], *, rate: float | None = None, speedup: float | None = None
    ) -> None:
        if (rate is not None and rate <= 0) or (speedup is not None and speedup <= 0):
            raise ValueError("rate and speedup must be above 0")
        self._clock = clock
        self._wait = wait
        self._rate = rate
        self._speedup = speedup
        self._started_at: float | None = None
        self._first_ms = 0
        self._sent = 0

    def slice_end(self, times_ms: NDArray[np.int64], at: int) -> int:
        """The end of the slice that starts at *at*: what is due within a twentieth of a second, at least one row."""
        end = at + (_UNPACED_ROWS if self._rate is None else max(1, min(_UNPACED_ROWS, int(self._rate * _TICK_S))))
        if self._speedup is not None:
            later = np.flatnonzero(times_ms[at:end] > times_ms[at] + self._speedup * _TICK_S * 1_000)
            end = min(end, at + int(later[0])) if len(later) else end
        return min(end, len(times_ms))

    def wait_until_due(self, first_ms: int, rows: int) -> bool:
        """Wait until a slice of *rows* that starts at event time *first_ms* is due; True where the run is to stop."""
        now = self._clock.monotonic()
        if self._started_at is None:
            self._started_at = now
            self._first_ms = first_ms
        due = self._started_at
        if self._rate is not None:
            due = max(due, self._started_at + self._sent / self._rate)
        if self._speedup is not None:
            due = max(due, self._started_at + (first_ms - self._first_ms) / 1_000 / self._speedup)
        self._sent += rows
        return self._wait(max(0.0, due - now))
