"""Threads whose failure ends the process, for the supervisor to start it again."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from centinela.errors import CentinelaError
from centinela.liveness.health import Health

_log = structlog.get_logger(__name__)


class GuardedThread(threading.Thread):
    """Runs *target*; where it raises, *health* dies and *on_death* is called.

    Args:
        on_death: Asks the process to stop; called in this thread.
    """

    def __init__(self, name: str, target: Callable[[], None], health: Health, on_death: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._work = target
        self._health = health
        self._on_death = on_death

    def run(self) -> None:
        """Do the work; see the class."""
        try:
            self._work()
        except Exception as error:
            expected = isinstance(error, CentinelaError)  # its message says what to do; a stack would not help
            _log.error("thread.died", thread=self.name, detail=str(error), exc_info=None if expected else error)
            self._health.died(f"{self.name}: {type(error).__name__}" + (f": {error}" if expected else ""))
            self._on_death()
