"""How fast records go out: a rate, a speed of event time, both, or as fast as they can."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from centinela.clock import Clock

_TICK_S = 0.05
_UNPACED_ROWS = 2_000


class Pacer:
    """Cuts a stream into slices and waits before each until it is due. A stall is made up for afterwards.

    Args:
        wait: Waits so many seconds; returns True where the run is to stop (``threading.Event.wait``).
        rate: Records a second at most; None for no limit.
        speedup: Seconds of event time that pass in a second; None for no tie to event time.
    """

    def __init__(
        self, clock: Clock, wait: Callable[[float], bool], *, rate: float | None = None, speedup: float | None = None
    ) -> None:
        if (rate is not None and rate <= 0) or (speedup is not None and speedup <= 0):
            raise ValueError("rate and speedup must be above 0")
        self._clock, self._wait, self._rate, self._speedup = clock, wait, rate, speedup
        self._began: float | None = None
        self._first_ms = 0
        self._sent = 0

    def slice_end(self, times_ms: NDArray[np.int64], at: int) -> int:
        """The end of the slice that starts at *at*: what falls due within a twentieth of a second, one row at least."""
        end = at + (_UNPACED_ROWS if self._rate is None else max(1, min(_UNPACED_ROWS, int(self._rate * _TICK_S))))
        if self._speedup is not None:
            later = np.flatnonzero(times_ms[at:end] > times_ms[at] + self._speedup * _TICK_S * 1_000)
            end = min(end, at + int(later[0])) if len(later) else end
        return min(end, len(times_ms))

    def hold(self, first_ms: int, rows: int) -> bool:
        """Wait until a slice of *rows* that starts at event time *first_ms* is due; True where the run is to stop."""
        now = self._clock.monotonic()
        if self._began is None:
            self._began, self._first_ms = now, first_ms
        due = self._began
        if self._rate is not None:
            due = max(due, self._began + self._sent / self._rate)
        if self._speedup is not None:
            due = max(due, self._began + (first_ms - self._first_ms) / 1_000 / self._speedup)
        self._sent += rows
        return self._wait(max(0.0, due - now))
