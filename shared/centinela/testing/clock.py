"""A clock that tests set."""

from __future__ import annotations

from datetime import datetime, timedelta


class FixedClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, instant: datetime) -> None:
        self._instant = instant
        self._seconds = 0.0

    def now(self) -> datetime:
        return self._instant

    def monotonic(self) -> float:
        return self._seconds

    def set(self, instant: datetime) -> None:
        """Move wall and monotonic time to *instant*."""
        self._seconds += (instant - self._instant).total_seconds()
        self._instant = instant

    def jump(self, by: timedelta) -> None:
        """Move wall time only, as when a machine's clock is corrected."""
        self._instant += by
