"""Bytes to events: every kind of bad input has a reason that names the field, and no record takes another's place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from centinela.codec import MAX_RECORD_BYTES, Decoder, ModelEventDecoder, require_plausible_time
from centinela.errors import InvalidRecord
from centinela.events import LabelReported, ModelPromoted, TransactionReceived, encode

NOW = datetime(2018, 4, 1, tzinfo=UTC)
GOOD = {"transaction_id": "t-1", "occurred_at": "2018-04-01T10:00:00Z", "amount": 12.5}
decoder = Decoder(TransactionReceived)


def transaction(**fields: object) -> bytes:
    return msgspec.json.encode(GOOD | fields)


def without(name: str) -> bytes:
    return msgspec.json.encode({key: value for key, value in GOOD.items() if key != name})


def reason(value: bytes | None) -> tuple[str, str]:
    with pytest.raises(InvalidRecord) as refused:
        decoder.decode(value)
    return refused.value.reason, refused.value.detail


@pytest.mark.parametrize(
    ("value", "expected", "names"),
    [
        (None, "empty", ""),
        (b"", "empty", ""),
        (b"{", "malformed_json", ""),
        (b"not json", "malformed_json", ""),
        (b"\xef\xbb\xbf" + transaction(), "malformed_json", ""),
        (transaction() + transaction(), "malformed_json", ""),
        (transaction() + b"," + transaction(), "malformed_json", ""),
        (b'{"transaction_id":"\xff","occurred_at":"2018-04-01T10:00:00Z","amount":1}', "malformed_json", ""),
        (b'{"transaction_id":"\\ud800","occurred_at":"2018-04-01T10:00:00Z","amount":1}', "malformed_json", ""),
        (b'{"a":' * 100_000, "malformed_json", ""),
        (transaction().replace(b"12.5", b"NaN"), "malformed_json", ""),
        (transaction().replace(b"12.5", b"Infinity"), "malformed_json", ""),
        (transaction().replace(b"12.5", b"-Infinity"), "malformed_json", ""),
        (transaction().replace(b"12.5", b"1e999"), "invalid_field", "$.amount"),
        (transaction(amount=-0.01), "invalid_field", "$.amount"),
        (transaction(amount=1e10), "invalid_field", "$.amount"),
        (transaction(amount="12.5"), "invalid_field", "$.amount"),
        (transaction(amount=None), "invalid_field", "$.amount"),
        (transaction(amount=True), "invalid_field", "$.amount"),
        (without("amount"), "invalid_field", "amount"),
        (without("transaction_id"), "invalid_field", "transaction_id"),
        (transaction(transaction_id=""), "invalid_field", "$.transaction_id"),
        (transaction(transaction_id=7), "invalid_field", "$.transaction_id"),
        (transaction(transaction_id="x" * 129), "invalid_field", "$.transaction_id"),
        (transaction(user_id=""), "invalid_field", "$.user_id"),
        (without("occurred_at"), "invalid_field", "occurred_at"),
        (transaction(occurred_at="2018-04-01T10:00:00"), "invalid_field", "$.occurred_at"),
        (transaction(occurred_at="yesterday"), "invalid_field", "$.occurred_at"),
        (transaction(occurred_at=1522576800), "invalid_field", "$.occurred_at"),
        (transaction(currency="euro"), "invalid_field", "$.currency"),
        (transaction(attributes={"v1": "high"}), "invalid_field", "$.attributes"),
        (
            transaction(verdict={"origin": "stream", "decision": "approve", "variant": "none"}),
            "invalid_field",
            "$.verdict.origin",
        ),
        (b"[]", "invalid_field", "object"),
        (b"7", "invalid_field", "object"),
        (b"null", "invalid_field", "object"),
        (transaction(version=2), "unsupported_version", "version 2"),
        (transaction(version="1"), "invalid_field", "$.version"),
        (transaction(currency="E" * MAX_RECORD_BYTES), "too_large", str(MAX_RECORD_BYTES)),
    ],
)
def test_bad_input_is_refused_with_its_reason(value: bytes | None, expected: str, names: str) -> None:
    found, detail = reason(value)

    assert found == expected
    assert names in detail


def test_a_value_of_exactly_the_limit_is_read() -> None:
    padding = MAX_RECORD_BYTES - len(transaction(note=""))

    assert decoder.decode(transaction(note="x" * padding)).transaction_id == "t-1"


def test_fields_that_a_later_release_added_are_ignored() -> None:
    assert decoder.decode(transaction(merchant={"country": "ES"})) == decoder.decode(transaction())


def test_a_missing_value_among_the_attributes_is_no_error() -> None:
    assert decoder.decode(transaction(attributes={"v1": None, "v2": -1.2})).attributes == {"v1": None, "v2": -1.2}


def test_an_encoded_event_decodes_to_itself() -> None:
    label = LabelReported(transaction_id="t", is_fraud=True, occurred_at=NOW, reported_at=NOW + timedelta(days=7))

    assert Decoder(LabelReported).decode(encode(label)) == label


def test_model_events_are_told_apart_by_their_type() -> None:
    promoted = ModelPromoted(
        model_name="FraudDetector",
        alias="champion",
        model_version="3",
        previous_version=None,
        sequence=1,
        observed_at=NOW,
    )
    events = ModelEventDecoder()

    assert events.decode(encode(promoted)) == promoted
    assert events.decode_many([encode(promoted)] * 2) == [promoted] * 2
    with pytest.raises(InvalidRecord, match="invalid_field"):
        events.decode(encode(promoted).replace(b"ModelPromoted", b"ModelForgotten"))


@pytest.mark.parametrize("occurred_at", [NOW + timedelta(days=2), datetime(9999, 12, 31, tzinfo=UTC)])
def test_a_time_in_the_far_future_is_refused(occurred_at: datetime) -> None:
    with pytest.raises(InvalidRecord, match="time_in_future"):
        require_plausible_time(occurred_at, NOW)


def test_a_time_that_a_slow_clock_explains_is_accepted() -> None:
    require_plausible_time(NOW + timedelta(hours=23), NOW)


def one_by_one(values: list[bytes | None]) -> list[object]:
    results: list[object] = []
    for value in values:
        try:
            results.append(decoder.decode(value))
        except InvalidRecord as invalid:
            results.append((invalid.reason, invalid.detail))
    return results


def all_at_once(values: list[bytes | None]) -> list[object]:
    return [(r.reason, r.detail) if isinstance(r, InvalidRecord) else r for r in decoder.decode_many(values)]


A, B, C = transaction(transaction_id="a"), transaction(transaction_id="b"), transaction(transaction_id="c")
LEFT, RIGHT = C[:-1] + b',"note":[1', b"2]}"
HALF_STRING, OTHER_HALF = C[:-1] + b',"note":"', b'"}'
HALF_OBJECT, REST_OF_OBJECT = C[:-1], b'"note":1}'
pieces = st.sampled_from(
    [
        A,
        B,
        C,
        A + b"," + B,
        LEFT,
        RIGHT,
        HALF_STRING,
        OTHER_HALF,
        HALF_OBJECT,
        REST_OF_OBJECT,
        b"7",
        b"1,2",
        A + b",7," + B,
        b"",
        None,
        b"{",
        transaction(version=2),
    ]
)


@given(st.lists(pieces, max_size=6))
@example([A + b"," + B, LEFT, RIGHT])
@example([LEFT, RIGHT, A + b"," + B])
@example([A + b"," + B, HALF_STRING, OTHER_HALF])
@example([A + b"," + B, HALF_OBJECT, REST_OF_OBJECT])
@example([A, B, C])
def test_a_batch_gives_every_record_the_result_it_has_alone(values: list[bytes | None]) -> None:
    assert all_at_once(values) == one_by_one(values)
