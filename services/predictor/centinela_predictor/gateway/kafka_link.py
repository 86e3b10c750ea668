"""Whether the gateway's records go to Kafka directly or through the outbox."""

from __future__ import annotations

import threading

from centinela.clock import Clock
from centinela.liveness.dependency import DependencyState
from centinela_predictor.gateway.outbox import Outbox

KAFKA = "kafka"
PROBE_S = 1.0
"""During an outage with an empty outbox, one record is sent directly this often, to see whether Kafka is back."""


class KafkaLink:
    """Records go directly to Kafka while it acknowledges and nothing older waits: so those of a key keep their order.
    Thread-safe.

    The gateway is ready without Kafka, so its health does not depend on this.
    """

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock
        self._kafka = DependencyState(KAFKA, clock=clock)
        self._lock = threading.Lock()
        self._probed_at = 0.0
        self._diverted = 0

    @property
    def outage(self) -> str | None:
        """Why Kafka counts as unavailable; None while it does not."""
        return self._kafka.reason

    def direct(self) -> bool:
        """Whether the next records may be sent directly. If not, they count as diverted until ``settled``."""
        with self._lock:
            if not self._diverted and not len(self._outbox):
                if self._kafka.reason is None:
                    return True
                now = self._clock.monotonic()
                if now - self._probed_at > PROBE_S:
                    self._probed_at = now
                    return True
            self._diverted += 1
            return False

    def settled(self, count: int) -> None:
        """*count* diverted groups of records are in the outbox now, or never will be."""
        with self._lock:
            self._diverted -= count

    def down(self, reason: str) -> None:
        """Kafka did not acknowledge."""
        if self._kafka.down(reason):
            self._probed_at = self._clock.monotonic()

    def up(self) -> None:
        """Kafka acknowledged."""
        self._kafka.up()
