"""What a process waits for, as its ``/health`` and ``/ready`` show it."""

from __future__ import annotations

import threading


class Health:
    """Thread-safe record of the conditions that stand between a process and readiness.

    Args:
        conditions: What the process needs before it is ready (``kafka``, ``model``, ...); all are unmet at the start.
    """

    def __init__(self, *conditions: str) -> None:
        self._lock = threading.Lock()
        self._unmet: dict[str, str] = dict.fromkeys(conditions, "not there yet")
        self._dead: str | None = None
        self._stuck: dict[str, str] = {}

    def wait_for(self, condition: str, detail: str) -> None:
        """*condition* is unmet, because of *detail*."""
        with self._lock:
            self._unmet[condition] = detail

    def met(self, condition: str) -> None:
        """*condition* holds."""
        with self._lock:
            self._unmet.pop(condition, None)

    def died(self, detail: str) -> None:
        """The process cannot recover by itself: no longer live."""
        with self._lock:
            self._dead = detail

    def stuck(self, part: str, detail: str) -> None:
        """*part* of the process makes no progress: not live until it does."""
        with self._lock:
            self._stuck[part] = detail

    def not_stuck(self, part: str) -> None:
        """*part* makes progress."""
        with self._lock:
            self._stuck.pop(part, None)

    @property
    def reason(self) -> str | None:
        """Why the process is not live; None while it is."""
        with self._lock:
            if self._dead is not None:
                return self._dead
            return "; ".join(f"{part} is stuck: {detail}" for part, detail in self._stuck.items()) or None

    @property
    def live(self) -> bool:
        return self.reason is None

    @property
    def ready(self) -> bool:
        return self.live and not self.unmet()

    def unmet(self) -> dict[str, str]:
        """Condition to the reason why it is unmet."""
        with self._lock:
            return dict(self._unmet)
