"""Both FastAPI applications, on fakes: no broker, no registry, no socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray

from centinela.events import TransactionReceived
from centinela.features.known_fields import known_fields
from centinela.features.layout import FeatureLayout
from centinela.features.rates_file import rates_of
from centinela.liveness.health import Health
from centinela.security.keys import ApiKeys
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeProducer
from centinela_ingest.bootstrap import Service
from centinela_ingest.settings import IngestSettings
from centinela_predictor.gateway.app import build_app
from centinela_predictor.gateway.delivery import VerdictDelivery
from centinela_predictor.gateway.gateway import Gateway
from centinela_predictor.gateway.kafka_link import KafkaLink
from centinela_predictor.gateway.outbox import Outbox
from centinela_predictor.gateway.readiness import Readiness
from centinela_predictor.gateway.requests import RequestParser
from centinela_predictor.gateway.verdict_cache import VerdictCache
from centinela_predictor.models.routing import Router
from centinela_predictor.models.scoring import ScoringCore
from centinela_predictor.models.slot import ModelSlot
from centinela_predictor.settings import PredictorSettings
from tests.support.served_models import served

NOW = datetime(2026, 3, 10, tzinfo=UTC)


class _AmountOnly:
    layout = FeatureLayout(())
    currency = "EUR"

    def seen(self, transactions: list[TransactionReceived]) -> list[bool]:
        return [False] * len(transactions)

    def features(self, transactions: list[TransactionReceived]) -> NDArray[np.float64]:
        matrix = np.full((len(transactions), len(self.layout.names)), np.nan)
        matrix[:, 0] = [t.amount for t in transactions]
        return matrix


def ingest_app(broker: FakeBroker, **settings: Any) -> FastAPI:
    """ingest with *settings*, ready, writing to *broker*."""
    service = Service(
        IngestSettings(**settings),
        threading.Event(),
        producer=FakeProducer(broker),
        consumer=FakeConsumer(broker),
        clock=FixedClock(NOW),
    )
    service.watch.check()
    return service.app


@contextmanager
def gateway_app(broker: FakeBroker, **settings: Any) -> Iterator[FastAPI]:
    """The gateway with *settings* and a model in service, writing to *broker*; its threads end with the context."""
    clock, slot = FixedClock(NOW), ModelSlot()
    outbox = Outbox(Path(":memory:"), clock, max_records=1_000, max_bytes=10_000_000)
    cache, link = VerdictCache(10_000), KafkaLink(outbox, clock)
    readiness = Readiness(Health(), link, outbox)
    delivery = VerdictDelivery(FakeProducer(broker), outbox, link, cache, clock, 5.0)
    gateway = Gateway(
        ScoringCore(slot, Router("s", 0.0)), _AmountOnly(), delivery, cache, clock, 100, readiness.missing
    )
    slot.swap("champion", served("3"))
    threads = [threading.Thread(target=work, daemon=True) for work in (gateway.work, delivery.work)]
    for thread in threads:
        thread.start()
    try:
        predictor = PredictorSettings(**settings)
        yield build_app(
            gateway,
            RequestParser(known_fields(predictor, refuse=predictor.unknown_fields == "refuse"), rates_of(predictor)),
            slot,
            readiness,
            clock,
            deadline_s=10.0,
            in_flight=8,
            keys=ApiKeys(None),
        )
    finally:
        gateway.stop()
        for thread in threads:
            thread.join(10)
