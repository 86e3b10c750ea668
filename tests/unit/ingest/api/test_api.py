"""The HTTP side over ASGI on a fake broker: what is taken, what is refused and how."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from fastapi.testclient import TestClient

from centinela.codec import Decoder
from centinela.events import LabelReported, TransactionReceived
from centinela.kafka.headers import header
from centinela.security.keys import new_key
from centinela.testing.kafka import FakeBroker
from tests.support.ingest_api import GOOD, LABEL, TRACE, build


def with_field(base: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    return base | {field: value}


def without(base: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in base.items() if name != field}


def test_a_transaction_is_in_the_log_when_it_is_answered(client: TestClient, broker: FakeBroker) -> None:
    answer = client.post("/transactions", json=GOOD)
    assert answer.status_code == 202
    assert answer.json() == {"accepted": 1, "transaction_ids": ["tx-1"]}
    [record] = broker.records("transactions")
    event = Decoder(TransactionReceived).decode(record.value)
    assert record.key == b"u-42"
    assert (event.transaction_id, event.amount, event.attributes) == ("tx-1", 100.5, {"v1": 0.5, "v2": None})
    assert header(record.headers, "ce_id") == "tx-1"


def test_a_batch_is_taken_in_its_order(client: TestClient, broker: FakeBroker) -> None:
    answer = client.post("/transactions", json=[with_field(GOOD, "transaction_id", f"tx-{n}") for n in range(1_000)])
    assert answer.status_code == 202
    assert answer.json()["transaction_ids"] == [f"tx-{n}" for n in range(1_000)]
    assert [header(r.headers, "ce_id") for r in broker.records("transactions")] == [f"tx-{n}" for n in range(1_000)]


def test_the_same_transaction_twice_is_taken_twice_for_the_stream_to_suppress(
    client: TestClient, broker: FakeBroker
) -> None:
    answers = [client.post("/transactions", json=GOOD) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    first, second = broker.records("transactions")
    assert (first.key, first.value) == (second.key, second.value)


def test_a_label_is_taken_under_its_transactions_key(client: TestClient, broker: FakeBroker) -> None:
    assert client.post("/labels", json=[LABEL, without(LABEL, "user_id")]).status_code == 202
    first, second = broker.records("labels")
    assert (first.key, second.key) == (b"u-42", b"tx-1")
    assert Decoder(LabelReported).decode(first.value).is_fraud


@pytest.mark.parametrize(
    ("event", "error", "field"),
    [
        (without(GOOD, "transaction_id"), "invalid_field", "transaction_id"),
        (without(GOOD, "amount"), "invalid_field", "amount"),
        (without(GOOD, "occurred_at"), "invalid_field", "occurred_at"),
        (with_field(GOOD, "transaction_id", ""), "invalid_field", "transaction_id"),
        (with_field(GOOD, "transaction_id", "x" * 129), "invalid_field", "transaction_id"),
        (with_field(GOOD, "transaction_id", 7), "invalid_field", "transaction_id"),
        (with_field(GOOD, "user_id", ""), "invalid_field", "user_id"),
        (with_field(GOOD, "amount", "100"), "invalid_field", "amount"),
        (with_field(GOOD, "amount", -0.01), "invalid_field", "amount"),
        (with_field(GOOD, "amount", 2e9), "invalid_field", "amount"),
        (with_field(GOOD, "amount", float("nan")), "invalid_field", "amount"),
        (with_field(GOOD, "amount", float("inf")), "invalid_field", "amount"),
        (with_field(GOOD, "currency", "euro"), "invalid_field", "currency"),
        (with_field(GOOD, "attributes", {"v1": float("-inf")}), "invalid_field", "attributes.v1"),
        (with_field(GOOD, "attributes", {"v1": 1, "v2": "2"}), "invalid_field", "attributes.v2"),
        (with_field(GOOD, "attributes", [1]), "invalid_field", "attributes"),
        (with_field(GOOD, "occurred_at", "2026-03-01T10:15:30"), "invalid_field", "occurred_at"),
        (with_field(GOOD, "occurred_at", "yesterday"), "invalid_field", "occurred_at"),
        (with_field(GOOD, "occurred_at", "2026-03-12T00:00:00Z"), "time_in_future", "occurred_at"),
        (with_field(GOOD, "occurred_at", "9999-12-31T23:59:59Z"), "time_in_future", "occurred_at"),
        (with_field(GOOD, "occurred_at", "0001-01-01T00:00:00Z"), "time_before_1970", "occurred_at"),
        (with_field(GOOD, "version", 2), "unsupported_version", "version"),
        (with_field(GOOD, "amuont", 3), "unknown_field", "amuont"),
        (
            with_field(GOOD, "verdict", {"origin": "gateway", "decision": "approve", "variant": "champion"}),
            "invalid_field",
            "verdict",
        ),
    ],
)
def test_a_bad_field_is_named_and_nothing_is_taken(
    client: TestClient, broker: FakeBroker, event: dict[str, Any], error: str, field: str
) -> None:
    alone = client.post("/transactions", content=json.dumps(event))
    assert (alone.status_code, alone.json()["error"], alone.json()["field"]) == (422, error, field)
    assert "index" not in alone.json()
    batch = client.post("/transactions", content=json.dumps([GOOD, GOOD, event]))
    assert (batch.status_code, batch.json()["field"], batch.json()["index"]) == (422, field, 2)
    assert broker.records("transactions") == []


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (without(LABEL, "is_fraud"), "is_fraud"),
        (without(LABEL, "reported_at"), "reported_at"),
        (with_field(LABEL, "is_fraud", 1), "is_fraud"),
        (with_field(LABEL, "reported_at", "2026-02-08T09:00:00Z"), "reported_at"),
        (with_field(LABEL, "reported_at", "2026-04-08T09:00:00Z"), "reported_at"),
        (with_field(LABEL, "occurred_at", "2026-03-01T10:15:30"), "occurred_at"),
    ],
)
def test_a_bad_label_is_refused_by_its_field(
    client: TestClient, broker: FakeBroker, event: dict[str, Any], field: str
) -> None:
    answer = client.post("/labels", json=event)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert broker.records("labels") == []


def test_a_transaction_that_names_no_currency_has_the_base_currency(broker: FakeBroker) -> None:
    client, _ = build(broker, base_currency="USD")
    named = GOOD | {"currency": "USD"}
    assert client.post("/transactions", json=GOOD).status_code == 202
    assert client.post("/transactions", json=[GOOD, named]).status_code == 202
    assert [Decoder(TransactionReceived).decode(r.value).currency for r in broker.records("transactions")] == [
        "USD"
    ] * 3


def test_a_number_out_of_range_names_its_field(client: TestClient) -> None:
    body = json.dumps(GOOD).replace("100.5", "1e999")
    assert client.post("/transactions", content=body).json()["field"] == "amount"
    answer = client.post(
        "/transactions",
        content=json.dumps([GOOD])[:-1] + "," + json.dumps(GOOD).replace('"v1": 0.5', '"v1": 1e999') + "]",
    )
    assert (answer.json()["field"], answer.json()["index"]) == ("attributes.v1", 1)


@pytest.mark.parametrize("body", [b"", b"{", b'{"amount": }', b"\xff\xfe", json.dumps(GOOD).encode() + b" trailing"])
def test_a_body_that_is_not_json_is_refused_as_malformed(client: TestClient, broker: FakeBroker, body: bytes) -> None:
    answer = client.post("/transactions", content=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "malformed_json")
    assert broker.records("transactions") == []


@pytest.mark.parametrize("body", [b"7", b'"text"', b"null", b"[]", b"[[]]", b"[" * 100_000])
def test_json_that_is_not_a_transaction_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post("/transactions", content=body)
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_field")


def test_a_body_of_two_megabytes_is_refused_unread_whether_it_says_so_or_not(
    client: TestClient, broker: FakeBroker
) -> None:
    declared = client.post("/transactions", content=b" " * 2_000_000)
    streamed = client.post("/transactions", content=iter([b" " * 500_000] * 4))
    for answer in (declared, streamed):
        assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
    assert broker.records("transactions") == []


def test_a_record_that_grows_past_the_topics_limit_is_refused(broker: FakeBroker) -> None:
    client, _ = build(broker, unknown_fields="report")
    attributes = ",".join(f'"a{n:05d}":1' for n in range(89_000))
    body = json.dumps(GOOD).replace('"v1": 0.5, "v2": null', attributes).encode()
    assert len(body) < 1_000_000
    answer = client.post("/transactions", content=body)
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
    assert broker.records("transactions") == []


def test_more_than_a_thousand_are_refused(client: TestClient, broker: FakeBroker) -> None:
    answer = client.post(
        "/transactions", json=[{"transaction_id": "x", "occurred_at": "2026-03-01T10:15:30Z", "amount": 1}] * 1_001
    )
    assert (answer.status_code, answer.json()["error"]) == (413, "too_many")
    assert broker.records("transactions") == []


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/labels", 405)])
def test_other_errors_have_the_form_of_every_refusal(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["error"]) == (status, "http_error")
    assert set(answer.json()) == {"error", "detail"}


def test_correlation_goes_in_out_and_into_kafka(client: TestClient, broker: FakeBroker) -> None:
    answer = client.post("/transactions", json=GOOD, headers={"traceparent": TRACE, "X-Request-ID": "r-1"})
    assert (answer.headers["traceparent"], answer.headers["x-request-id"]) == (TRACE, "r-1")
    [record] = broker.records("transactions")
    assert header(record.headers, "traceparent") == TRACE


@pytest.mark.parametrize("given", ["nonsense", "00-" + "g" * 32 + "-" + "b" * 16 + "-01"])
def test_an_invalid_traceparent_is_replaced(client: TestClient, broker: FakeBroker, given: str) -> None:
    answer = client.post("/transactions", json=GOOD, headers={"traceparent": given, "X-Request-ID": "two words"})
    assert answer.headers["traceparent"] != given
    assert answer.headers["x-request-id"] != "two words"
    [record] = broker.records("transactions")
    assert header(record.headers, "traceparent") == answer.headers["traceparent"]


def test_logs_contain_neither_the_user_nor_card_data(client: TestClient) -> None:
    with structlog.testing.capture_logs() as logs:
        client.post("/transactions", json=GOOD)
        client.post("/transactions", json=with_field(GOOD, "amount", "100.5"))
    assert [entry["event"] for entry in logs] == ["transactions.accepted", "request.refused"]
    text = repr(logs)
    for secret in ("u-42", "100.5", "t-7"):
        assert secret not in text
    assert len(logs[0]["user"]) == 16


def test_metrics_count_what_was_taken_and_refused(client: TestClient) -> None:
    def value(name: str) -> float:
        lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
        return float(lines[0].split()[-1]) if lines else 0.0

    taken, refused = (
        'centinela_ingest_accepted_total{kind="labels"}',
        'centinela_ingest_refused_total{error="malformed_json",kind="labels"}',
    )
    before = value(taken), value(refused)
    client.post("/labels", json=[LABEL, LABEL])
    client.post("/labels", content=b"{")
    assert (value(taken), value(refused)) == (before[0] + 2, before[1] + 1)


def test_the_docs_describe_the_bodies(client: TestClient) -> None:
    description: Callable[[], Any] = client.get("/openapi.json").json
    schemas = description()["components"]["schemas"]
    assert "amount" in schemas["TransactionIn"]["required"]
    assert "verdict" not in schemas["TransactionIn"]["properties"]
    assert not [name for name in schemas if "Verdict" in name]
    assert client.get("/docs").status_code == 200
    post = description()["paths"]["/transactions"]["post"]
    assert {"408", "429", "503", "504"} <= post["responses"].keys()
    assert [parameter["name"] for parameter in post["parameters"]] == ["X-Request-Timeout-Ms"]


@pytest.mark.parametrize(("path", "body"), [("/transactions", GOOD), ("/labels", LABEL)])
def test_where_keys_are_set_only_a_producer_may_write(broker: FakeBroker, path: str, body: dict[str, Any]) -> None:
    producer, scorer = new_key("shop", "producer"), new_key("gate", "scorer")
    client, _ = build(broker, api_keys=f"{producer.entry} {scorer.entry}")
    with structlog.testing.capture_logs() as logged:
        answers = [
            client.post(path, json=body, headers={"Authorization": f"Bearer {key}"} if key else {})
            for key in (None, scorer.key, producer.key)
        ]

    assert [answer.status_code for answer in answers] == [401, 403, 202]
    assert answers[0].json() == {"error": "key_missing", "detail": "send an API key: `Authorization: Bearer ...`"}
    assert answers[0].headers["www-authenticate"] == 'Bearer realm="centinela"'
    assert len(broker.records(path[1:])) == 1
    assert logged[-1]["client"] == "shop"
    assert not any(key.key in str(logged) or str(key.entry) in str(logged) for key in (producer, scorer))
