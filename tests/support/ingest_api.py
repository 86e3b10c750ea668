"""The ingest API over ASGI on a fake broker, and what is posted to it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

from fastapi.testclient import TestClient

from centinela.clock import Clock
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeProducer
from centinela_ingest.bootstrap import Service
from centinela_ingest.settings import IngestSettings

NOW = datetime(2026, 3, 10, tzinfo=UTC)
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
GOOD: dict[str, Any] = {
    "transaction_id": "tx-1",
    "user_id": "u-42",
    "terminal_id": "t-7",
    "occurred_at": "2026-03-01T10:15:30Z",
    "amount": 100.5,
    "attributes": {"v1": 0.5, "v2": None},
}
LABEL: dict[str, Any] = {
    "transaction_id": "tx-1",
    "user_id": "u-42",
    "is_fraud": True,
    "occurred_at": "2026-03-01T10:15:30Z",
    "reported_at": "2026-03-08T09:00:00Z",
}


def build(
    broker: FakeBroker, producer: Any = None, clock: Clock | None = None, **settings: Any
) -> tuple[TestClient, Service]:
    service = Service(
        IngestSettings(**settings),
        threading.Event(),
        producer=producer or FakeProducer(broker),
        consumer=FakeConsumer(broker),
        clock=clock or FixedClock(NOW),
    )
    service.watch.check()
    return TestClient(service.app), service
