"""Requests as clients send them, and what each is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from fastapi.testclient import TestClient

from centinela.testing.kafka import FakeBroker
from tests.support.both_apis import gateway_app, ingest_app

TRANSACTION = {"transaction_id": "t", "occurred_at": "2026-03-01T10:15:30Z", "amount": 5.5, "user_id": "u"}
LABEL = {
    "transaction_id": "t",
    "is_fraud": True,
    "occurred_at": "2026-03-01T10:15:30Z",
    "reported_at": "2026-03-08T09:00:00Z",
}
PREDICT = {"amount": 5.5}
REPORT = {"unknown_fields": "report"}
NEGATIVE = (
    "Expected `float` >= 0.0; for a refund or a reversal give its amount, not below 0,"
    ' and "kind": "refund" or "reversal"'
)
Client = Callable[..., TestClient]
RATES = Path(__file__).parent / "files" / "rates.csv"
"""From 2026-03-01 on 1 JPY is worth .0075 EUR."""


class Row(NamedTuple):
    """A request, and fields of its answer; *settings* are those of the service."""

    name: str
    service: str
    method: str
    path: str
    body: Any
    status: int
    answer: dict[str, Any]
    settings: Mapping[str, Any] = MappingProxyType({})


def unknown(path: str, hint: str | None = None, **more: Any) -> dict[str, Any]:
    """The refusal of a field at *path*."""
    name = path.rpartition(".")[2]
    meant = f"; did you mean {hint}?" if hint else ""
    detail = f"{name} is neither a field here nor an attribute (CENTINELA_ATTRIBUTES, CENTINELA_OTHER_FIELDS){meant}"
    return {"error": "unknown_field", "field": path, "detail": detail, **more}


def no_rate(currency: str, base: str, when: str = "") -> dict[str, Any]:
    """The refusal of an amount in *currency*."""
    detail = (
        f"no rate from {currency} to {base}{when}: add it to the file of CENTINELA_RATES_FILE, or set"
        " CENTINELA_BASE_CURRENCY where all amounts are in another currency"
    )
    return {"error": "no_rate", "field": "currency", "detail": detail}


ROWS = (
    # Load balancers and uptime checks ask with HEAD.
    *(
        Row("asked with HEAD", service, "HEAD", path, None, 200, {})
        for service in ("ingest", "gateway")
        for path in ("/health", "/ready", "/metrics")
    ),
    Row("asked with HEAD", "gateway", "HEAD", "/predict", None, 405, {}),
    # A misspelt field is refused by its name.
    Row("the README's example", "gateway", "POST", "/predict", PREDICT | {"time": 42, "v1": 0.5, "v2": -1.2}, 200, {}),
    Row("an attribute in capitals", "gateway", "POST", "/predict", PREDICT | {"V1": 0.1}, 422, unknown("V1", "v1")),
    Row(
        "an attribute in capitals, in attributes",
        "gateway",
        "POST",
        "/predict",
        PREDICT | {"attributes": {"v2": 1, "V1": 0.1}},
        422,
        unknown("attributes.V1", "v1"),
    ),
    Row(
        "a misspelt id with a text",
        "gateway",
        "POST",
        "/predict",
        PREDICT | {"user": "u-1", "userid": "u-1"},
        422,
        unknown("user"),
    ),
    Row(
        "a misspelt id with a number",
        "gateway",
        "POST",
        "/predict",
        PREDICT | {"userid": 7},
        422,
        unknown("userid", "user_id"),
    ),
    Row(
        "a misspelt time",
        "gateway",
        "POST",
        "/predict",
        PREDICT | {"occured_at": "2026-03-01T10:15:30Z"},
        422,
        unknown("occured_at", "occurred_at"),
    ),
    Row(
        "one item of a batch",
        "gateway",
        "POST",
        "/predict/batch",
        [PREDICT, PREDICT | {"V28": None}],
        422,
        unknown("[1].V28", "v28"),
    ),
    Row(
        "one item of an object with the batch",
        "gateway",
        "POST",
        "/predict/batch",
        {"transactions": [PREDICT | {"attributes": {"v29": 1}}]},
        422,
        unknown("transactions[0].attributes.v29"),
    ),
    Row(
        "beside the batch",
        "gateway",
        "POST",
        "/predict/batch",
        {"transactions": [PREDICT], "currency": "EUR"},
        422,
        unknown("currency"),
    ),
    Row(
        "an attribute in capitals, reported",
        "gateway",
        "POST",
        "/predict",
        PREDICT | {"V1": 0.1, "attributes": {"v29": 2}},
        200,
        {"unknown_fields": ["V1", "attributes.v29"]},
        REPORT,
    ),
    Row(
        "a text in a field that is only reported",
        "gateway",
        "POST",
        "/predict",
        PREDICT | {"merchant": "m"},
        422,
        {"error": "invalid_field", "field": "merchant"},
        REPORT,
    ),
    Row(
        "a column that was declared",
        "gateway",
        "POST",
        "/predict",
        PREDICT | {"mcc": 5411},
        200,
        {},
        {"other_fields": ("mcc",)},
    ),
    Row(
        "a misspelt id",
        "ingest",
        "POST",
        "/transactions",
        TRANSACTION | {"terminal": "t-1"},
        422,
        unknown("terminal", "terminal_id"),
    ),
    Row(
        "an attribute in capitals",
        "ingest",
        "POST",
        "/transactions",
        TRANSACTION | {"attributes": {"V1": 0.1}},
        422,
        unknown("attributes.V1", "v1"),
    ),
    Row(
        "one item of a batch",
        "ingest",
        "POST",
        "/transactions",
        [TRANSACTION, TRANSACTION | {"attributes": {"V1": 0.1}}],
        422,
        unknown("attributes.V1", "v1", index=1),
    ),
    Row(
        "one item of a batch of transactions",
        "ingest",
        "POST",
        "/transactions",
        [TRANSACTION, TRANSACTION | {"Amount": 1}],
        422,
        unknown("Amount", "amount", index=1),
    ),
    Row(
        "a misspelt attribute, reported",
        "ingest",
        "POST",
        "/transactions",
        [TRANSACTION, TRANSACTION | {"Amount": 1, "attributes": {"V1": 0.1}}],
        202,
        {"accepted": 2, "unknown_fields": ["[1].Amount", "[1].attributes.V1"]},
        REPORT,
    ),
    Row("nothing misspelt", "ingest", "POST", "/transactions", TRANSACTION, 202, {"transaction_ids": ["t"]}, REPORT),
    Row(
        "a misspelt field of a label",
        "ingest",
        "POST",
        "/labels",
        LABEL | {"userId": "u"},
        422,
        unknown("userId", "user_id"),
    ),
    Row(
        "a misspelt field of a label, reported",
        "ingest",
        "POST",
        "/labels",
        LABEL | {"userId": "u"},
        202,
        {"unknown_fields": ["userId"]},
        REPORT,
    ),
    Row(
        "a verdict is not taken from a client, reported or not",
        "ingest",
        "POST",
        "/transactions",
        TRANSACTION | {"verdict": {"origin": "gateway", "decision": "approve", "variant": "champion"}},
        422,
        {"error": "invalid_field", "field": "verdict"},
        REPORT,
    ),
    # Amounts in several currencies.
    *(
        Row(name, service, "POST", path, body | more, status, answer, settings)
        for service, path, body, taken in (
            ("gateway", "/predict", PREDICT, 200),
            ("ingest", "/transactions", TRANSACTION, 202),
        )
        for name, more, status, answer, settings in (
            ("another currency without rates", {"currency": "JPY"}, 422, no_rate("JPY", "EUR"), {}),
            ("another currency with a rate", {"currency": "JPY"}, taken, {}, {"rates_file": RATES}),
            ("a currency without a rate", {"currency": "CHF"}, 422, no_rate("CHF", "EUR"), {"rates_file": RATES}),
            (
                "a time before the first rate",
                {"currency": "JPY", "occurred_at": "2026-02-28T23:59:59Z"},
                422,
                no_rate("JPY", "EUR", " before 2026-03-01"),
                {"rates_file": RATES},
            ),
            ("the only currency, by name", {"currency": "USD"}, taken, {}, {"base_currency": "USD"}),
            ("no currency is the base currency", {}, taken, {}, {"base_currency": "USD"}),
            ("the default is not the base", {"currency": "EUR"}, 422, no_rate("EUR", "USD"), {"base_currency": "USD"}),
            ("a currency in small letters", {"currency": "jpy"}, 422, {"field": "currency"}, {"rates_file": RATES}),
        )
    ),
    Row(
        "one item of a batch without a rate",
        "gateway",
        "POST",
        "/predict/batch",
        [PREDICT, PREDICT | {"currency": "CHF"}],
        422,
        {"error": "no_rate", "field": "[1].currency"},
    ),
    Row(
        "one item of a batch without a rate",
        "ingest",
        "POST",
        "/transactions",
        [TRANSACTION, TRANSACTION | {"currency": "CHF"}],
        422,
        {"error": "no_rate", "field": "currency", "index": 1},
    ),
    # Refunds and reversals.
    *(
        Row(
            f"a {kind}",
            "gateway",
            "POST",
            "/predict",
            PREDICT | {"kind": kind},
            200,
            {"decision": "approve", "fraud_probability": None, "variant": "none", "reasons": [f"{kind}: not scored"]},
        )
        for kind in ("refund", "reversal")
    ),
    Row("a purchase that says so", "gateway", "POST", "/predict", PREDICT | {"kind": "purchase"}, 200, {"reasons": []}),
    Row("another kind", "gateway", "POST", "/predict", PREDICT | {"kind": "Refund"}, 422, {"field": "kind"}),
    *(
        Row("a negative amount", service, "POST", path, body | {"amount": -5.5}, 422, {"detail": NEGATIVE})
        for service, path, body in (("gateway", "/predict", PREDICT), ("ingest", "/transactions", TRANSACTION))
    ),
    Row("a refund", "ingest", "POST", "/transactions", TRANSACTION | {"kind": "refund"}, 202, {"accepted": 1}),
    Row(
        "another kind", "ingest", "POST", "/transactions", TRANSACTION | {"kind": "chargeback"}, 422, {"field": "kind"}
    ),
)


@pytest.fixture
def client() -> Iterator[Client]:
    with ExitStack() as stack:

        def built(service: str, settings: Mapping[str, Any]) -> TestClient:
            broker = FakeBroker()
            if service == "ingest":
                return TestClient(ingest_app(broker, **settings))
            return TestClient(stack.enter_context(gateway_app(broker, **settings)))

        yield built


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.service} {row.method} {row.path}: {row.name}")
def test_a_request_is_answered_as_it_should(row: Row, client: Client) -> None:
    answer = client(row.service, row.settings).request(row.method, row.path, json=row.body)
    assert answer.status_code == row.status, answer.text
    if row.answer:
        assert row.answer.items() <= answer.json().items()
    elif row.method != "HEAD":
        assert "unknown_fields" not in answer.json()
