"""The end of a process: its parts are closed one after another, within one budget of time."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from centinela.clock import Clock

_log = structlog.get_logger(__name__)


class Drain:
    """Ends parts of a process; what does not end in time is left behind in a daemon thread, and logged.

    Args:
        within_s: For all of them together, from now on.
    """

    def __init__(self, clock: Clock, within_s: float) -> None:
        self._clock = clock
        self._until = clock.monotonic() + within_s

    def left(self) -> float:
        """Seconds left, 0.0 at least."""
        return max(0.0, self._until - self._clock.monotonic())

    def join(self, *threads: threading.Thread) -> None:
        """Wait for *threads* to end; those that were never started are skipped."""
        for thread in threads:
            if thread.ident is not None:
                thread.join(self.left())
                if thread.is_alive():
                    _log.warning("drain.left_behind", part=thread.name)

    def close(self, part: str, close: Callable[[], None]) -> None:
        """Call *close*, which may wait for a broker that does not answer, and wait for it while there is time; what it
        raises is logged."""

        def attempt() -> None:
            try:
                close()
            except Exception:
                _log.exception("drain.failed", part=part)

        thread = threading.Thread(target=attempt, name=part, daemon=True)
        thread.start()
        self.join(thread)
