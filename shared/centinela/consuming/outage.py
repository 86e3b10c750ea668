"""One outage, told once: health, metrics, one log line when it begins and one when it ends, and how long to wait."""

from __future__ import annotations

import random
import threading

import structlog

from centinela.clock import Clock, SystemClock
from centinela.errors import DependencyUnavailable
from centinela.liveness.health import Health
from centinela.telemetry.metrics import DEPENDENCY_ERRORS, DEPENDENCY_UP

_log = structlog.get_logger(__name__)


class Backoff:
    """Waits between attempts: exponential with jitter, cut short by the stop event.

    Args:
        first_s: Mean wait after the first failure; it doubles up to *max_s*.
    """

    def __init__(self, stop: threading.Event, *, first_s: float = 0.1, max_s: float = 5.0) -> None:
        self._stop, self._first, self._max = stop, first_s, max_s
        self._attempts = 0

    def wait(self) -> None:
        """Wait before the next attempt."""
        delay = min(self._max, self._first * 2**self._attempts)
        self._attempts = min(self._attempts + 1, 16)
        self._stop.wait(random.uniform(delay / 2, delay))

    def reset(self) -> None:
        """The attempt went well."""
        self._attempts = 0


class Outage:
    """Keeps track of dependencies that are away, for a loop that tries again.

    Args:
        default: The dependency where the error names none.
    """

    def __init__(
        self, health: Health, stop: threading.Event, default: str = "kafka", *, clock: Clock | None = None
    ) -> None:
        self._health, self._default, self._clock = health, default, clock or SystemClock()
        self._backoff = Backoff(stop)
        self._began: dict[str, float] = {}

    @property
    def active(self) -> bool:
        """Whether something is away."""
        return bool(self._began)

    def failed(self, error: DependencyUnavailable) -> None:
        """Note *error*; log it where it begins an outage."""
        name = error.dependency or self._default
        self._health.wait_for(name, str(error))
        DEPENDENCY_UP.labels(name).set(0)
        DEPENDENCY_ERRORS.labels(name).inc()
        if name not in self._began:
            self._began[name] = self._clock.monotonic()
            _log.warning("dependency.became_unavailable", dependency=name, detail=str(error))

    def back_off(self) -> None:
        """Wait before the next attempt."""
        self._backoff.wait()

    def answered(self, name: str) -> None:
        """*name* answers; log it where that ends an outage."""
        self._health.met(name)
        if (began := self._began.pop(name, None)) is not None:
            DEPENDENCY_UP.labels(name).set(1)
            _log.info("dependency.recovered", dependency=name, duration_s=round(self._clock.monotonic() - began, 3))
        if not self._began:
            self._backoff.reset()

    def over(self) -> None:
        """All that was away answers again."""
        for name in list(self._began):
            self.answered(name)
