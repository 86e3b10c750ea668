"""How the gateway stands: ready without Kafka as long as the outbox takes what Kafka does not."""

from __future__ import annotations

from centinela.liveness.health import Health
from centinela.web.ops import health_payload
from centinela_predictor.gateway.kafka_link import Link
from centinela_predictor.gateway.outbox import Outbox

DOES_WITHOUT = "kafka"


class Standing:
    """What ``/health`` and ``/ready`` tell of the gateway.

    Args:
        health: Conditions; an unmet ``kafka`` degrades the gateway and no more.
    """

    def __init__(self, health: Health, link: Link, outbox: Outbox) -> None:
        self._health, self._link, self._outbox = health, link, outbox

    def lacks(self) -> dict[str, str]:
        """What a new verdict has to wait for."""
        return {name: detail for name, detail in self._health.unmet().items() if name != DOES_WITHOUT}

    def degraded(self) -> dict[str, str]:
        """What is away while the gateway answers all the same."""
        away = self._link.away or self._health.unmet().get(DOES_WITHOUT)
        found = {DOES_WITHOUT: away} if away is not None else {}
        if waiting := len(self._outbox):
            found["outbox"] = f"{waiting} verdicts wait for Kafka, the oldest for {self._outbox.oldest_s:.0f} s"
        return found

    def health(self, model_loaded: bool) -> tuple[int, dict[str, object]]:
        """Status and body of ``/health``."""
        return self._shown(*health_payload(self._health, model_loaded), waiting=self.lacks())

    def ready(self) -> tuple[int, dict[str, object]]:
        """Status and body of ``/ready``: 503 while new transactions are refused."""
        waiting = self.lacks()
        if self._link.away is not None and not self._outbox.takes(1):
            waiting["outbox"] = "full"
        ready = self._health.live and not waiting
        return self._shown(200 if ready else 503, {"ready": ready}, waiting=waiting, always=True)

    def _shown(
        self, status: int, body: dict[str, object], *, waiting: dict[str, str], always: bool = False
    ) -> tuple[int, dict[str, object]]:
        body.pop("waiting_for", None)
        if waiting or always:
            body["waiting_for"] = waiting
        if degraded := self.degraded():
            body["degraded"] = degraded
        return status, body
