"""Whether the Kafka client still hears the brokers, and what to do where only others are heard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from centinela.errors import DependencyUnavailable
from centinela.liveness.health import Health
from centinela.telemetry.metrics import DEPENDENCY_UP

_log = structlog.get_logger(__name__)
SILENCE_S = 6.0
"""A fetch is answered within 1.5 s, records or not: after this long the brokers count as away."""
ASK_EVERY_S = 5.0
DEAF_S = 60.0
"""Longer than a request waits for its answer (40 s). A client that hears nothing for so long from brokers that answer
others will not hear again."""


class Hearing:
    """Tells health and the log when the brokers stop answering fetches, and when they answer again.

    Args:
        health: Told under ``kafka``.
        others_hear: Asks the brokers by a client of its own whether they are there.
    """

    def __init__(self, health: Health, others_hear: Callable[[], Awaitable[bool]]) -> None:
        self._health, self._others_hear = health, others_hear
        self._away = False
        self._silent_s = self._deaf_s = 0.0

    async def look(self, answer_age_s: float | None, since_last_look_s: float) -> bool:
        """Judge once; whether the brokers are heard.

        Args:
            answer_age_s: How long ago a fetch was last answered; None where none was since partitions were assigned.
            since_last_look_s: Seconds; of a process that was frozen meanwhile no more than a few count.

        Raises:
            DependencyUnavailable: Others have heard the brokers for ``DEAF_S``, and this client has not.
        """
        if answer_age_s is not None and answer_age_s <= SILENCE_S:
            self._silent_s = self._deaf_s = 0.0
            self._turn(away=False, silent_s=answer_age_s)
            return True
        if answer_age_s is not None:
            self._turn(away=True, silent_s=answer_age_s)
        self._silent_s += min(since_last_look_s, ASK_EVERY_S)
        if self._silent_s >= ASK_EVERY_S:
            self._deaf_s = self._deaf_s + self._silent_s if await self._others_hear() else 0.0
            self._silent_s = 0.0
        if self._deaf_s >= DEAF_S:
            raise DependencyUnavailable(
                f"the brokers have answered others for {self._deaf_s:.0f} s, and this client not", dependency="kafka"
            )
        return not self._away

    def _turn(self, *, away: bool, silent_s: float) -> None:
        if away == self._away:
            return
        self._away = away
        DEPENDENCY_UP.labels("kafka").set(not away)
        if away:
            self._health.wait_for("kafka", "the brokers do not answer")
            _log.warning("kafka.awaited", silent_s=round(silent_s, 1))
        else:
            self._health.met("kafka")
            _log.info("kafka.returned")
