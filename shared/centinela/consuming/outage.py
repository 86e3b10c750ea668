"""The outages of a loop's dependencies: which are down, and how long to wait before the next attempt."""

from __future__ import annotations

import threading

from centinela.clock import Clock, SystemClock
from centinela.errors import DependencyUnavailable
from centinela.liveness.dependency import DependencyState
from centinela.liveness.health import Health
from centinela.liveness.retry import Backoff


class Outage:
    """Keeps track of unavailable dependencies for a loop that tries again.

    Args:
        default: The dependency where the error names none.
    """

    def __init__(
        self, health: Health, stop: threading.Event, default: str = "kafka", *, clock: Clock | None = None
    ) -> None:
        self._health = health
        self._default = default
        self._clock = clock or SystemClock()
        self._backoff = Backoff(stop)
        self._states: dict[str, DependencyState] = {}

    @property
    def active(self) -> bool:
        """Whether a dependency is unavailable."""
        return any(state.reason is not None for state in self._states.values())

    def failed(self, error: DependencyUnavailable) -> None:
        """Note *error*."""
        self._state(error.dependency or self._default).down(str(error))

    def back_off(self) -> None:
        """Wait before the next attempt."""
        self._backoff.wait()

    def answered(self, name: str) -> None:
        """*name* answers."""
        self._state(name).up()
        if not self.active:
            self._backoff.reset()

    def over(self) -> None:
        """Every dependency answers again."""
        for name, state in self._states.items():
            if state.reason is not None:
                self.answered(name)

    def _state(self, name: str) -> DependencyState:
        if name not in self._states:
            self._states[name] = DependencyState(name, self._health, self._clock)
        return self._states[name]
