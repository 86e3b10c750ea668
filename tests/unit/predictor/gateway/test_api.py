"""The gateway over HTTP, on fakes: answers, refusals, correlation, health."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from centinela.clock import Clock, SystemClock
from centinela.codec import Decoder
from centinela.events import TransactionReceived
from centinela.features.known_fields import KnownFields
from centinela.features.layout import FeatureLayout
from centinela.kafka.headers import header
from centinela.liveness.health import Health
from centinela.security.keys import ApiKeys, new_key, parse
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeProducer
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
from tests.support.served_models import served
from tests.support.waiting import until

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLAIN = b'{"amount": 100.5, "time": 42, "v1": 0.5, "v2": -1.2}'
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


class AmountOnly:
    layout = FeatureLayout(())
    currency = "EUR"

    def seen(self, transactions: list[TransactionReceived]) -> list[bool]:
        return [t.transaction_id == "from-ingest" for t in transactions]

    def features(self, transactions: list[TransactionReceived]) -> NDArray[np.float64]:
        matrix = np.full((len(transactions), len(self.layout.names)), np.nan)
        matrix[:, 0] = [t.amount for t in transactions]
        if any(t.amount == 13 for t in transactions):
            raise ZeroDivisionError("a defect")
        return matrix


class World:
    def __init__(self, keys: ApiKeys | None = None, clock: Clock | None = None) -> None:
        self.broker, self.slot, self.health = FakeBroker(), ModelSlot(), Health("model", "state")
        clock = clock or FixedClock(NOW)
        outbox = Outbox(Path(":memory:"), clock, max_records=2, max_bytes=1_000_000)
        cache, self.link = VerdictCache(100), KafkaLink(outbox, clock)
        readiness = Readiness(self.health, self.link, outbox)
        delivery = VerdictDelivery(FakeProducer(self.broker), outbox, self.link, cache, clock, 5.0)
        gateway = Gateway(
            ScoringCore(self.slot, Router("s", 0.0)), AmountOnly(), delivery, cache, clock, 100, readiness.missing
        )
        self.threads = [
            threading.Thread(target=gateway.work, daemon=True),
            threading.Thread(target=delivery.work, daemon=True),
        ]
        self.gateway = gateway
        self.client = TestClient(
            build_app(
                gateway,
                RequestParser(KnownFields(frozenset({"v1", "v2", "time"}), refuse=True)),
                self.slot,
                readiness,
                clock,
                deadline_s=10.0,
                in_flight=4,
                keys=keys or ApiKeys(None),
            ),
            raise_server_exceptions=False,
        )

    def serve(self) -> None:
        self.slot.swap("champion", served("3"))
        self.health.met("model")
        self.health.met("state")


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    for thread in world.threads:
        thread.start()
    yield world
    world.gateway.stop()
    for thread in world.threads:
        thread.join(10)


@pytest.fixture
def client(world: World) -> TestClient:
    world.serve()
    return world.client


def test_the_plain_body_is_answered(client: TestClient, world: World) -> None:
    response = client.post("/predict", content=PLAIN)
    assert response.status_code == 200
    body = response.json()
    assert {
        "is_fraud": False,
        "fraud_probability": 0.1005,
        "decision": "approve",
        "model_version": "3",
        "variant": "champion",
        "threshold": 0.8,
        "reasons": [],
    }.items() <= body.items()
    [record] = world.broker.records("transactions")
    event = Decoder(TransactionReceived).decode(record.value)
    assert (event.transaction_id, event.attributes) == (body["transaction_id"], {"time": 42.0, "v1": 0.5, "v2": -1.2})


def test_a_batch_is_answered_in_order(client: TestClient) -> None:
    response = client.post(
        "/predict/batch",
        json={"transactions": [{"amount": 900, "transaction_id": "a"}, {"amount": 1, "transaction_id": "b"}]},
    )
    assert [(p["transaction_id"], p["is_fraud"]) for p in response.json()["predictions"]] == [("a", True), ("b", False)]


def test_a_repeated_id_gets_the_first_verdict_and_another_payload_a_conflict(client: TestClient, world: World) -> None:
    body = {"transaction_id": "tx", "amount": 5}
    first, again = client.post("/predict", json=body).json(), client.post("/predict", json=body).json()
    assert again == first | {"repeated": True}
    assert len(world.broker.records("transactions")) == 1
    other = client.post("/predict", json=body | {"amount": 6})
    assert (other.status_code, other.json()["error"], other.json()["field"]) == (409, "conflict", "amount")


@pytest.mark.parametrize(
    ("body", "status", "error", "field"),
    [
        (b"{", 400, "malformed_json", None),
        (b'{"amount": "x"}', 422, "invalid_field", "amount"),
        (b'{"amount": NaN}', 422, "invalid_field", "amount"),
        (b'{"amount": -Infinity}', 422, "invalid_field", "amount"),
        (b'{"amount": -1}', 422, "invalid_field", "amount"),
        (b'{"amount": 1, "v1": NaN}', 422, "invalid_field", "v1"),
        (b'{"amount": 1, "occurred_at": "2026-03-01T10:00:00"}', 422, "invalid_field", "occurred_at"),
        (b'{"amount": 1, "occurred_at": "2031-03-01T10:00:00Z"}', 422, "time_in_future", "occurred_at"),
        (b'{"amount": 1}' + b" " * 1_000_000, 413, "too_large", None),
    ],
)
def test_bad_input_is_answered_with_the_field(
    client: TestClient, world: World, body: bytes, status: int, error: str, field: str | None
) -> None:
    response = client.post("/predict", content=body)
    refusal = response.json()
    assert (response.status_code, refusal["error"], refusal["field"]) == (status, error, field)
    assert refusal["detail"]
    assert world.broker.records("transactions") == []


def test_a_body_without_declared_length_is_cut_off_at_the_limit(client: TestClient) -> None:
    response = client.post("/predict", content=(b" " * 100_000 for _ in range(30)))
    assert response.status_code == 413


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/predict", 405)])
def test_other_errors_have_the_same_form(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert set(response.json()) == {"error", "field", "detail"}


def test_without_kafka_it_answers_says_so_and_refuses_when_the_outbox_is_full(client: TestClient, world: World) -> None:
    world.broker.unavailable = True
    answers = [client.post("/predict", json={"transaction_id": f"tx-{n}", "amount": 5}) for n in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    health = client.get("/health")
    assert (health.status_code, health.json()["degraded"]["outbox"]) == (
        200,
        "2 verdicts wait for Kafka, the oldest for 0 s",
    )
    assert client.get("/ready").json()["waiting_for"] == {"outbox": "full"}

    refused = client.post("/predict", json={"transaction_id": "tx-2", "amount": 5})
    assert (refused.status_code, refused.headers["retry-after"], refused.json()["error"]) == (503, "1", "outbox_full")
    again = client.post("/predict", json={"transaction_id": "tx-0", "amount": 5})
    assert (again.status_code, again.json()["repeated"]) == (200, True)


def test_an_outage_of_kafka_degrades_it_and_does_not_make_it_unready(client: TestClient, world: World) -> None:
    world.health.wait_for("kafka", "Kafka does not answer")
    ready = client.get("/ready")
    assert (ready.status_code, ready.json()) == (
        200,
        {"ready": True, "waiting_for": {}, "degraded": {"kafka": "Kafka does not answer"}},
    )


def test_before_a_model_serves_on_caught_up_state_requests_get_503_that_says_why(world: World) -> None:
    world.health.wait_for("state", "200 records behind")
    response = world.client.post("/predict", content=PLAIN)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["error"] == "not_ready"
    assert "state: 200 records behind" in response.json()["detail"]
    assert world.client.get("/ready").status_code == 503
    assert world.client.get("/health").json() | {"waiting_for": ...} == {
        "status": "healthy",
        "model_loaded": False,
        "waiting_for": ...,
    }


def test_past_the_limit_in_flight_a_request_is_429_and_those_before_it_are_answered() -> None:
    world = World()
    world.serve()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(world.client.post, "/predict", content=PLAIN) for _ in range(4)]
        until(
            lambda: '\ncentinela_requests_in_flight{service="gateway"} 4.0' in world.client.get("/metrics").text,
            "four are in flight",
        )
        one_more = world.client.post("/predict", content=PLAIN)
        for thread in world.threads:
            thread.start()
        answers = [request.result(10) for request in waiting]
    world.gateway.stop()
    for thread in world.threads:
        thread.join(10)
    assert (one_more.status_code, one_more.headers["retry-after"]) == (429, "1")
    assert one_more.json() == {
        "error": "overloaded",
        "field": None,
        "detail": "4 requests are in flight, and no more are taken",
    }
    assert [answer.status_code for answer in answers] == [200] * 4
    assert 'centinela_gateway_refused_total{error="overloaded"}' in world.client.get("/metrics").text


def test_past_its_deadline_a_request_is_504_and_its_retry_is_served() -> None:
    world = World(clock=SystemClock())
    world.serve()
    body = {"transaction_id": "tx", "amount": 5}
    late = world.client.post("/predict", json=body, headers={"X-Request-Timeout-Ms": "20"})
    for thread in world.threads:
        thread.start()
    again = world.client.post("/predict", json=body)
    world.gateway.stop()
    assert (late.status_code, late.json()["error"], late.headers["retry-after"]) == (504, "deadline_exceeded", "1")
    assert (again.status_code, again.json()["repeated"]) == (200, False)
    assert len(world.broker.records("transactions")) == 1


def test_an_invalid_timeout_is_400(client: TestClient) -> None:
    refused = client.post("/predict", content=PLAIN, headers={"X-Request-Timeout-Ms": "soon"})
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_header")


def test_health_and_readiness_once_it_serves(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "healthy", "model_loaded": True}
    assert client.get("/ready").json() == {"ready": True, "waiting_for": {}}


def test_model_tells_what_serves(client: TestClient) -> None:
    body = client.get("/model").json()
    assert (body["champion"]["version"], body["champion"]["threshold"], body["challenger"]) == ("3", 0.8, None)


def test_a_defect_is_500_in_the_same_form_and_the_next_request_is_served(client: TestClient) -> None:
    failed = client.post("/predict", json={"amount": 13})
    assert (failed.status_code, failed.json()["error"]) == (500, "internal")
    assert client.post("/predict", content=PLAIN).status_code == 200


def test_correlation_goes_back_to_the_caller_and_on_into_kafka(client: TestClient, world: World) -> None:
    response = client.post("/predict", content=PLAIN, headers={"traceparent": TRACE, "X-Request-ID": "order-7"})
    assert (response.headers["traceparent"], response.headers["x-request-id"]) == (TRACE, "order-7")
    [record] = world.broker.records("transactions")
    assert (header(record.headers, "traceparent"), header(record.headers, "x-request-id")) == (TRACE, "order-7")


@pytest.mark.parametrize(
    "given", [{}, {"traceparent": "nonsense", "X-Request-ID": "with space"}, {"X-Request-ID": "x" * 129}]
)
def test_correlation_is_created_where_it_is_missing_or_invalid(client: TestClient, given: dict[str, str]) -> None:
    response = client.post("/predict", content=b"{", headers=given)
    assert response.status_code == 400
    assert response.headers["traceparent"].startswith("00-")
    assert len(response.headers["x-request-id"]) == 32


def test_metrics_count_predictions_under_the_plain_names(client: TestClient) -> None:
    client.post("/predict", content=b'{"amount": 999}')
    text = client.get("/metrics").text
    assert 'predictions_total{decision="decline",variant="champion"}' in text
    assert "prediction_latency_seconds_count" in text
    assert "\nfraud_rate " in text


def test_the_docs_show_the_bodies_with_examples(client: TestClient) -> None:
    assert client.get("/docs").status_code == 200
    schema = client.get("/openapi.json").json()
    body = schema["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert body["examples"]["plain"]["value"] == {"amount": 100.5, "time": 42, "v1": 0.5, "v2": -1.2}
    assert schema["components"]["schemas"]["PredictRequest"]["required"] == ["amount"]
    assert "fraud_probability" in schema["components"]["schemas"]["Answer"]["properties"]
    for path in ("/predict", "/predict/batch"):
        assert {"408", "409", "429", "503", "504"} <= schema["paths"][path]["post"]["responses"].keys()
        assert [parameter["name"] for parameter in schema["paths"][path]["post"]["parameters"]] == [
            "X-Request-Timeout-Ms"
        ]


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_where_keys_are_set_only_a_scorer_gets_a_verdict(path: str) -> None:
    scorer, producer = new_key("shop", "scorer"), new_key("till", "producer")
    world = World(ApiKeys(parse([str(scorer.entry), str(producer.entry)])))

    none, wrong, right = (
        world.client.post(path, content=b"{", headers={"Authorization": f"Bearer {key}"} if key else {})
        for key in (None, producer.key, scorer.key)
    )

    assert [answer.status_code for answer in (none, wrong, right)] == [401, 403, 400]
    assert none.headers["www-authenticate"] == 'Bearer realm="centinela"'
    assert wrong.json() == {"error": "role_missing", "field": None, "detail": "this needs a key of the role scorer"}
    assert world.client.get("/health").status_code == 200
    world.gateway.stop()
