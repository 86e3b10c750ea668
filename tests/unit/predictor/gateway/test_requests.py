"""HTTP bodies become transactions, or an error that names the field."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from centinela.features.currency import Rates, RateSeries
from centinela.features.known_fields import KnownFields
from centinela.web.refusals import RequestRefused
from centinela_predictor.gateway.requests import (
    BATCH_LIMIT,
    BODY_LIMIT,
    PredictRequest,
    RequestParser,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DOLLARS = Rates("EUR", {"USD": RateSeries(np.array([0]), np.array([0.8]))})
PARSER = RequestParser(KnownFields(frozenset({"v1", "v2", "time"}), refuse=True), DOLLARS)


def parse_one(body: bytes, now: datetime) -> PredictRequest:
    [parsed] = PARSER.one(body, now)
    return parsed.request


def parse_many(body: bytes, now: datetime) -> list[PredictRequest]:
    return [parsed.request for parsed in PARSER.many(body, now)]


def test_the_plain_body_needs_nothing_but_numbers() -> None:
    request = parse_one(b'{"amount": 100.5, "time": 42, "v1": 0.5, "v2": -1.2}', NOW)
    assert request == PredictRequest(amount=100.5, attributes={"time": 42.0, "v1": 0.5, "v2": -1.2})


def test_the_full_body_is_taken_whole_and_null_is_a_missing_value() -> None:
    body = b"""{"transaction_id": "tx-1", "user_id": "u", "terminal_id": null,
                "occurred_at": "2026-03-01T10:00:00+02:00",
                "amount": 1, "currency": "USD", "attributes": {"v1": null}, "v2": null}"""
    assert parse_one(body, NOW) == PredictRequest(
        transaction_id="tx-1",
        user_id="u",
        occurred_at=datetime(2026, 3, 1, 8, tzinfo=UTC),
        amount=1.0,
        currency="USD",
        attributes={"v1": None, "v2": None},
    )


def test_a_transaction_that_names_no_currency_has_the_base_currency() -> None:
    parser = RequestParser(KnownFields(frozenset(), refuse=True), Rates("USD"))
    parsed = parser.many(b'[{"amount": 1}, {"amount": 1, "currency": "USD"}]', NOW)
    assert [request.currency for request, _ in parsed] == ["USD", "USD"]


MALFORMED = [
    b"",
    b"{",
    b"amount=1",
    b'{"amount": 1,}',
    b"\xff\xfe",
    b'{"amount": 1, "user_id": "\xff"}',
    b'{"amount": 1, "x": "\\ud800"}',
    b'{"amount": 1, "x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
]


@pytest.mark.parametrize("body", MALFORMED)
def test_a_body_that_is_not_json_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(RequestRefused) as refused:
        parse_one(body, NOW)
    assert (refused.value.status, refused.value.error, refused.value.field) == (400, "malformed_json", None)


INVALID = [
    (b"{}", "amount"),
    (b'{"v1": 1}', "amount"),
    (b'{"amount": null}', "amount"),
    (b'{"amount": "12"}', "amount"),
    (b'{"amount": true}', "amount"),
    (b'{"amount": -0.01}', "amount"),
    (b'{"amount": 1e10}', "amount"),
    (b'{"amount": NaN}', "amount"),
    (b'{"amount": Infinity}', "amount"),
    (b'{"amount": -Infinity}', "amount"),
    (b'{"amount": 1e999}', "amount"),
    (b'{"amount": 1, "v1": NaN}', "v1"),
    (b'{"amount": 1, "v1": -1e999}', "v1"),
    (b'{"amount": 1, "v1": "x"}', "v1"),
    (b'{"amount": 1, "v1": true}', "v1"),
    (b'{"amount": 1, "v1": [1]}', "v1"),
    (b'{"amount": 1, "v1": {}}', "v1"),
    (b'{"amount": 1, "v1": 1' + b"0" * 400 + b"}", "v1"),
    (b'{"amount": 1, "attributes": {"v1": 1, "v2": "x"}}', "attributes.v2"),
    (b'{"amount": 1, "attributes": {"v2": NaN}}', "attributes.v2"),
    (b'{"amount": 1, "attributes": 5}', "attributes"),
    (b'{"amount": 1, "attributes": {"v1": 1}, "v1": 1}', "v1"),
    (b'{"amount": 1, "transaction_id": ""}', "transaction_id"),
    (b'{"amount": 1, "transaction_id": 7}', "transaction_id"),
    (b'{"amount": 1, "user_id": "' + b"u" * 129 + b'"}', "user_id"),
    (b'{"amount": 1, "terminal_id": []}', "terminal_id"),
    (b'{"amount": 1, "currency": "euro"}', "currency"),
    (b'{"amount": 1, "occurred_at": "yesterday"}', "occurred_at"),
    (b'{"amount": 1, "occurred_at": "2026-03-01T10:00:00"}', "occurred_at"),
    (b'{"amount": 1, "occurred_at": 1772366400}', "occurred_at"),
    (b'{"amount": 1, "occurred_at": "2026-03-02T12:00:01Z"}', "occurred_at"),
    (b'{"amount": 1, "occurred_at": "9999-12-31T23:59:59-12:00"}', "occurred_at"),
    (b'{"amount": 1, "occurred_at": "0001-01-01T00:00:00+14:00"}', "occurred_at"),
    (b"[]", None),
    (b"null", None),
    (b"3", None),
    (b'"text"', None),
]


@pytest.mark.parametrize(("body", "field"), INVALID)
def test_a_field_that_does_not_fit_is_named(body: bytes, field: str | None) -> None:
    with pytest.raises(RequestRefused) as refused:
        parse_one(body, NOW)
    assert (refused.value.status, refused.value.field) == (422, field)
    assert refused.value.error in {"invalid_field", "time_in_future", "time_before_1970"}
    assert refused.value.detail


def test_a_time_up_to_a_day_ahead_is_a_clock_that_is_wrong() -> None:
    assert parse_one(b'{"amount": 1, "occurred_at": "2026-03-02T12:00:00Z"}', NOW).occurred_at == datetime(
        2026, 3, 2, 12, tzinfo=UTC
    )


def test_a_body_past_the_limit_is_too_large() -> None:
    padding = b" " * (BODY_LIMIT - len(b'{"amount": 1}'))
    assert parse_one(b'{"amount": 1}' + padding, NOW).amount == 1
    with pytest.raises(RequestRefused) as refused:
        parse_one(b'{"amount": 1}' + padding + b" ", NOW)
    assert refused.value.status == 413


@pytest.mark.parametrize(
    "body", [b'[{"amount": 1, "v1": 2}, {"amount": 3}]', b'{"transactions": [{"amount": 1, "v1": 2}, {"amount": 3}]}']
)
def test_a_batch_is_an_array_or_an_object_that_holds_it(body: bytes) -> None:
    assert parse_many(body, NOW) == [PredictRequest(amount=1.0, attributes={"v1": 2.0}), PredictRequest(amount=3.0)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'[{"amount": 1}, {"amount": -1}]', "[1].amount"),
        (b'{"transactions": [{"amount": 1}, {"v1": 1}]}', "transactions[1].amount"),
        (b'{"transactions": [{"amount": 1, "v1": "x"}]}', "transactions[0].v1"),
        (b'[{"amount": 1, "v1": NaN}]', "[0].v1"),
        (
            b'{"transactions": [{"amount": 1, "attributes": {"v1": 1}}, {"amount": 1, "attributes": {"v1": "x"}}]}',
            "transactions[1].attributes.v1",
        ),
        (b'[{"amount": 1, "occurred_at": "2030-01-01T00:00:00Z"}]', "[0].occurred_at"),
        (b"{}", "transactions"),
        (b"[1]", "[0]"),
        (b"5", None),
    ],
)
def test_a_batch_names_the_row_and_the_field(body: bytes, field: str | None) -> None:
    with pytest.raises(RequestRefused) as refused:
        parse_many(body, NOW)
    assert (refused.value.status, refused.value.field) == (422, field)


def test_a_batch_past_the_limit_is_refused_as_a_whole() -> None:
    row = b'{"amount": 1}'
    assert len(parse_many(b"[" + b",".join([row] * BATCH_LIMIT) + b"]", NOW)) == BATCH_LIMIT
    with pytest.raises(RequestRefused) as refused:
        parse_many(b"[" + b",".join([row] * (BATCH_LIMIT + 1)) + b"]", NOW)
    assert (refused.value.status, refused.value.error) == (422, "too_many")
