"""What people see of a record: no card data, users as keyed hashes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from centinela.deadletters.masking import masked_headers, masked_key, masked_text, masked_value, shape
from centinela.telemetry.logging import hashed_user

CARD = "4111111111111111"


def test_users_are_hashed_as_in_the_logs_and_unknown_fields_show_their_kind() -> None:
    value = {
        "transaction_id": "t-1",
        "user_id": "maria",
        "amount": 5,
        "attributes": {"v1": 0.5},
        "pan": CARD,
        "note": "x" * 7,
        "flags": [1, 2],
        "n": 1.5,
        "gone": None,
    }

    seen = masked_value(json.dumps(value).encode(), "salt")

    assert seen == {
        "transaction_id": "t-1",
        "user_id": hashed_user("maria", "salt"),
        "amount": 5,
        "attributes": "(object, 1 fields)",
        "pan": "(text, 16 characters)",
        "note": "(text, 7 characters)",
        "flags": "(array, 2 items)",
        "n": "(number)",
        "gone": None,
    }


@pytest.mark.parametrize("text", [CARD, "4111 1111 1111 1111", "4111-1111-1111-1111", f"x{CARD}y"])
def test_a_card_number_in_a_field_that_may_be_seen_is_left_out(text: str) -> None:
    assert "1111" not in masked_text(text)
    assert "1111" not in str(
        masked_value(json.dumps({"transaction_id": text, "reasons": [text], text: 1}).encode(), "s")
    )


@pytest.mark.parametrize("text", ["2026-03-01T10:15:30.123456+00:00", "tx-123456789012", "transactions-dlq:3:41", ""])
def test_what_is_no_card_number_stays(text: str) -> None:
    assert masked_text(text) == text


def test_what_is_no_json_shows_its_shape_only() -> None:
    assert shape(b'{"user_id": "maria", 41') == '{"aaaa_aa": "aaaaa", 99'
    assert masked_value(b'{"pan":"4111', "s") == {"undecodable": '{"aaa":"9999', "bytes": 12}
    assert masked_value(None, "s") is None


def test_headers_of_others_show_their_size() -> None:
    assert masked_headers((("ce_id", b"t-1"), ("authorization", b"Bearer x"), ("dlq.reason", b"late"))) == {
        "ce_id": "t-1",
        "authorization": "(8 bytes)",
        "dlq.reason": "late",
    }


def test_a_key_is_hashed() -> None:
    assert masked_key(b"maria", "s") == hashed_user("maria", "s")
    assert masked_key(None, "s") is None


@given(st.binary(max_size=200))
def test_any_value_can_be_shown(value: bytes) -> None:
    json.dumps(masked_value(value, "s"))
