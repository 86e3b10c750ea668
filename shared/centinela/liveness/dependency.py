"""Whether a dependency answers: one state machine, one pair of log events, for every client of every process."""

from __future__ import annotations

import threading

import structlog

from centinela.clock import Clock, SystemClock
from centinela.errors import DependencyUnavailable
from centinela.liveness.health import Health
from centinela.telemetry.metrics import DEPENDENCY_ERRORS, DEPENDENCY_UP

_log = structlog.get_logger(__name__)


class DependencyState:
    """Whether *name* answers. Thread-safe.

    An outage is logged once when it begins (``dependency.became_unavailable``) and once when it ends
    (``dependency.recovered``); every failure counts in ``centinela_dependency_errors_total``.

    Args:
        name: ``kafka``, ``mlflow``, ``disk``, ...
        health: Told what the process waits for; None where the process is ready without the dependency.
    """

    def __init__(self, name: str, health: Health | None = None, clock: Clock | None = None) -> None:
        self.name = name
        self._health = health
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._answered = False
        self._since = 0.0

    @property
    def reason(self) -> str | None:
        """Why the dependency counts as unavailable; None while it does not."""
        return self._reason

    @property
    def answered(self) -> bool:
        """Whether the last attempt was answered; False before the first one."""
        return self._answered

    def down(self, reason: str) -> bool:
        """The dependency did not answer; True where this begins an outage."""
        with self._lock:
            begins = self._reason is None
            self._reason = reason
            self._answered = False
            if begins:
                self._since = self._clock.monotonic()
            if self._health is not None:
                self._health.wait_for(self.name, reason)
            DEPENDENCY_UP.labels(self.name).set(0)
        DEPENDENCY_ERRORS.labels(self.name).inc()
        if begins:
            _log.warning("dependency.became_unavailable", dependency=self.name, detail=reason)
        return begins

    def up(self) -> bool:
        """The dependency answered; True where this ends an outage."""
        if self._answered:
            return False
        with self._lock:
            ends = self._reason is not None
            self._reason = None
            self._answered = True
            duration = self._clock.monotonic() - self._since
            if self._health is not None:
                self._health.met(self.name)
            DEPENDENCY_UP.labels(self.name).set(1)
        if ends:
            _log.info("dependency.recovered", dependency=self.name, duration_s=round(duration, 3))
        return ends

    def require(self) -> None:
        """Raises ``DependencyUnavailable`` during an outage."""
        if (reason := self._reason) is not None:
            raise DependencyUnavailable(reason, dependency=self.name)
