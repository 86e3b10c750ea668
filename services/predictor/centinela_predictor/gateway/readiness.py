"""Whether the gateway is ready: without Kafka too, as long as the outbox has room."""

from __future__ import annotations

from centinela.liveness.health import Health
from centinela.web.ops import Payload, health_payload
from centinela_predictor.gateway.kafka_link import KAFKA, KafkaLink
from centinela_predictor.gateway.outbox import Outbox


class Readiness:
    """What ``/health`` and ``/ready`` say of the gateway.

    Args:
        health: Conditions; an unmet ``kafka`` degrades the gateway, no more.
    """

    def __init__(self, health: Health, link: KafkaLink, outbox: Outbox) -> None:
        self._health = health
        self._link = link
        self._outbox = outbox

    def missing(self) -> dict[str, str]:
        """What a new verdict has to wait for."""
        return {name: detail for name, detail in self._health.unmet().items() if name != KAFKA}

    def degraded(self) -> dict[str, str]:
        """What is unavailable while the gateway answers all the same."""
        outage = self._link.outage or self._health.unmet().get(KAFKA)
        degraded = {KAFKA: outage} if outage is not None else {}
        if waiting := len(self._outbox):
            degraded["outbox"] = f"{waiting} verdicts wait for Kafka, the oldest for {self._outbox.oldest_s:.0f} s"
        return degraded

    def health(self, model_loaded: bool) -> Payload:
        """Status and body of ``/health``."""
        status, body = health_payload(self._health, model_loaded)
        body.pop("waiting_for", None)
        if missing := self.missing():
            body["waiting_for"] = missing
        return status, self._with_degraded(body)

    def ready(self) -> Payload:
        """Status and body of ``/ready``: 503 while new transactions are refused."""
        missing = self.missing()
        if self._link.outage is not None and not self._outbox.has_room(1):
            missing["outbox"] = "full"
        ready = self._health.live and not missing
        return (200 if ready else 503), self._with_degraded({"ready": ready, "waiting_for": missing})

    def _with_degraded(self, body: dict[str, object]) -> dict[str, object]:
        degraded = self.degraded()
        return body | {"degraded": degraded} if degraded else body
