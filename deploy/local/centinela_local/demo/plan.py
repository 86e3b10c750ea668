"""What the demo streams, and how fast."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta


@dataclass(frozen=True)
class Plan:
    """Days count from ``start``; the live stream begins on day ``history_days``.

    Args:
        attack_day: First day of card testing.
        last_day: The stream ends before this day at the latest.
        day_seconds: Wall time of a streamed day; longer where the stream cannot keep up.
        answering_day_seconds: A day takes so long at least while a retraining runs, which takes its wall time.
        lag_limit: Records that may wait unscored before the feed waits too.
    """

    seed: int = 3
    customers: int = 1_500
    terminals: int = 3_000
    start: date = date(2025, 1, 1)
    history_days: int = 45
    attack_day: int = 57
    last_day: int = 250
    day_seconds: float = 2.0
    answering_day_seconds: float = 4.0
    lag_limit: int = 6_000

    @property
    def live_from(self) -> datetime:
        return self._at(self.history_days)

    @property
    def attack_at(self) -> datetime:
        return self._at(self.attack_day)

    def _at(self, day: int) -> datetime:
        return datetime.combine(self.start, time(), UTC) + timedelta(days=day)
