"""Whether the gateway's records go to Kafka at once or by way of the outbox."""

from __future__ import annotations

import threading

import structlog

from centinela.clock import Clock
from centinela_predictor.gateway.outbox import Outbox

_log = structlog.get_logger()
TRY_AGAIN_S = 1.0
"""Where nothing can wait in the outbox either, one record is tried so often."""


class Link:
    """Records go straight to Kafka while it acknowledges and nothing older waits: so those of a key keep their order.
    Thread-safe."""

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox, self._clock = outbox, clock
        self._lock = threading.Lock()
        self._away: str | None = None
        self._since = 0.0
        self._on_the_way = 0

    @property
    def away(self) -> str | None:
        """Why Kafka counts as away; None while it does not."""
        return self._away

    def direct(self) -> bool:
        """Whether the next records may be sent at once. If not, they are on their way to the outbox until
        ``arrived``."""
        with self._lock:
            if not self._on_the_way and not len(self._outbox):
                now = self._clock.monotonic()
                if self._away is None:
                    return True
                if now - self._since > TRY_AGAIN_S:
                    self._since = now
                    return True
            self._on_the_way += 1
            return False

    def arrived(self, count: int) -> None:
        """So many that were not to be sent at once are in the outbox now, or never will be."""
        with self._lock:
            self._on_the_way -= count

    def lost(self, reason: str) -> None:
        """Kafka did not acknowledge."""
        with self._lock:
            first, self._away = self._away is None, reason
            if first:
                self._since = self._clock.monotonic()
        if first:
            _log.warning("kafka.became_unavailable", detail=reason)

    def reached(self) -> None:
        """Kafka acknowledged."""
        with self._lock:
            away, self._away = self._away, None
            since = self._since
        if away is not None:
            _log.info("kafka.recovered", duration_s=round(self._clock.monotonic() - since, 3))
