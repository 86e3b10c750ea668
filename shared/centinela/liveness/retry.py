"""How long to wait between attempts."""

from __future__ import annotations

import random
import threading


class Backoff:
    """Waits between attempts: exponential with jitter, cut short by the stop event.

    Args:
        stop: Ends a wait at once; None where the caller waits itself, by ``next_s``.
        first_s: Upper bound of the wait after the first failure, in seconds; it doubles up to *max_s*.
        max_s: Upper bound of every wait, in seconds.
    """

    def __init__(self, stop: threading.Event | None = None, *, first_s: float = 0.1, max_s: float = 5.0) -> None:
        self._stop = stop or threading.Event()
        self._first_s = first_s
        self._max_s = max_s
        self._attempts = 0

    def next_s(self) -> float:
        """Count a failed attempt; the seconds to wait before the next one."""
        delay = min(self._max_s, self._first_s * 2**self._attempts)
        self._attempts = min(self._attempts + 1, 16)
        return random.uniform(delay / 2, delay)

    def wait(self) -> bool:
        """Count a failed attempt and wait before the next one; True where the stop event cut the wait short."""
        return self._stop.wait(self.next_s())

    def reset(self) -> None:
        """The attempt succeeded."""
        self._attempts = 0
