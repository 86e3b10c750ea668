"""A gateway's core with its threads, on a broker and features that a test controls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from centinela.codec import Decoder
from centinela.errors import DependencyUnavailable, InvalidRecord
from centinela.events import TransactionReceived
from centinela.features.layout import FeatureLayout
from centinela.kafka.port import Delivery, Outgoing
from centinela.testing.clock import FixedClock
from centinela.web.backpressure import Deadline
from centinela_predictor.gateway.delivery import VerdictDelivery
from centinela_predictor.gateway.gateway import Gateway
from centinela_predictor.gateway.kafka_link import KafkaLink
from centinela_predictor.gateway.messages import Answer
from centinela_predictor.gateway.outbox import Outbox
from centinela_predictor.gateway.outbox_sender import OutboxSender
from centinela_predictor.gateway.requests import PredictRequest
from centinela_predictor.gateway.verdict_cache import VerdictCache
from centinela_predictor.models.routing import Router
from centinela_predictor.models.scoring import ScoringCore
from centinela_predictor.models.slot import ModelSlot
from tests.support.served_models import served

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
LAYOUT = FeatureLayout(("v1",))
DECODE = Decoder(TransactionReceived).decode


class AmountOnly:
    """Features that are the amount and nothing else; the amount 13 cannot be served."""

    layout = LAYOUT
    currency = "EUR"

    def seen(self, transactions: list[TransactionReceived]) -> list[bool]:
        return [t.transaction_id == "from-ingest" for t in transactions]

    def features(self, transactions: list[TransactionReceived]) -> NDArray[np.float64]:
        if any(t.amount == 13 for t in transactions):
            raise ZeroDivisionError("a defect")
        matrix = np.full((len(transactions), len(LAYOUT.names)), np.nan)
        matrix[:, 0] = [t.amount for t in transactions]
        return matrix


class Refused:
    """The delivery of a record that the broker does not accept."""

    def wait(self, timeout_s: float) -> None:
        raise InvalidRecord("too_large", "the topic's limit")


class Broker:
    """A producer whose acknowledgements a test controls."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.acknowledges = threading.Event()
        self.acknowledges.set()
        self.unavailable = False
        self.refuses: InvalidRecord | None = None
        self.refuses_id: str | None = None

    def send(self, record: Outgoing) -> Delivery:
        if self.unavailable:
            raise DependencyUnavailable("Kafka does not answer")
        if self.refuses:
            raise self.refuses
        if self.refuses_id and DECODE(record.value).transaction_id == self.refuses_id:
            return Refused()
        self.sent.append(record)
        return self

    def wait(self, timeout_s: float) -> None:
        if not self.acknowledges.wait(timeout_s):
            raise DependencyUnavailable("not acknowledged in time")

    def flush(self, timeout_s: float) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Nothing to release."""


def drain(world: World) -> None:
    """Send what waits in the outbox, until nothing more can be sent."""
    closing = threading.Event()
    closing.set()
    OutboxSender(world.outbox, world.broker, world.link, world.cache, world.clock, closing).run()


class World:
    """A gateway with its threads, and what surrounds it."""

    def __init__(
        self, allowed_s: float = 20.0, queue_limit: int = 100, patience_s: float = 20.0, outbox_records: int = 100
    ) -> None:
        self.slot = ModelSlot()
        self.broker = Broker()
        self.cache = VerdictCache(1_000)
        self.clock = FixedClock(NOW)
        self.slot.swap("champion", served("1"))
        core = ScoringCore(self.slot, Router("salt", 0.0))
        self.outbox = Outbox(Path(":memory:"), self.clock, max_records=outbox_records, max_bytes=10_000_000)
        self.link = KafkaLink(self.outbox, self.clock)
        self.delivery = VerdictDelivery(self.broker, self.outbox, self.link, self.cache, self.clock, patience_s)
        self.missing: dict[str, str] = {}
        self.gateway = Gateway(
            core, AmountOnly(), self.delivery, self.cache, self.clock, queue_limit, lambda: self.missing
        )
        self.allowed_s = allowed_s
        self.threads = [threading.Thread(target=run, daemon=True) for run in (self.gateway.work, self.delivery.work)]

    def start(self) -> World:
        for thread in self.threads:
            thread.start()
        return self

    def stop(self) -> None:
        self.broker.acknowledges.set()
        self.gateway.stop()
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()

    def ask(self, *requests: PredictRequest) -> list[Answer]:
        return self.submit(*requests).result(10)

    def submit(self, *requests: PredictRequest) -> Future[list[Answer]]:
        return self.gateway.submit(list(requests), TRACE, "req-1", Deadline(self.clock, None, self.allowed_s))


@contextmanager
def running_world() -> Iterator[World]:
    """A world that runs, and is stopped at the end."""
    world = World().start()
    try:
        yield world
    finally:
        world.stop()


def tx(transaction_id: str | None = "tx-1", amount: float = 912.0, **more: object) -> PredictRequest:
    return PredictRequest(transaction_id=transaction_id, amount=amount, **more)  # type: ignore[arg-type]
