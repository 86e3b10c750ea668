"""A verdict's fields are named once; its flat event carries every one of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from centinela.codec import Decoder
from centinela.events import AttachedVerdict, TransactionReceived, TransactionScored, Verdict, encode

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TRANSACTION = TransactionReceived(
    transaction_id="t", occurred_at=NOW, amount=3.5, user_id="u", terminal_id="x", currency="USD"
)
FIELDS: dict[str, Any] = {
    "origin": "gateway",
    "decision": "decline",
    "variant": "challenger",
    "score": 0.9,
    "threshold": 0.8,
    "model_version": "7",
    "feature_set": "v1:",
    "features": b"12345678",
    "reasons": ("amount=912.00 above 90% of reference",),
    "scored_at": NOW,
    "feature_currency": "EUR",
}


def test_the_event_has_every_field_of_the_verdict_and_of_its_transaction() -> None:
    assert set(FIELDS) == set(Verdict.__struct_fields__) == set(AttachedVerdict.__struct_fields__)
    event = TransactionScored.of(TRANSACTION, Verdict(**FIELDS))
    assert {name: getattr(event, name) for name in FIELDS} == FIELDS
    of_both = set(TransactionReceived.__struct_fields__) & set(TransactionScored.__struct_fields__)
    assert {name: getattr(event, name) for name in of_both} == {name: getattr(TRANSACTION, name) for name in of_both}
    assert event.is_fraud
    assert not TransactionScored.of(TRANSACTION, Verdict(**FIELDS | {"decision": "review"})).is_fraud


def test_an_event_reads_back_as_the_verdict_that_it_was_made_of() -> None:
    verdict = Verdict(**FIELDS)
    value = encode(TransactionScored.of(TRANSACTION, verdict))
    assert msgspec.json.decode(value, type=Verdict) == verdict
    assert Decoder(TransactionScored).decode(value) == TransactionScored.of(TRANSACTION, verdict)


@pytest.mark.parametrize("missing", ["feature_set", "features", "scored_at"])
def test_an_incomplete_verdict_is_not_an_event(missing: str) -> None:
    with pytest.raises(ValueError, match="lacks its vector or its time"):
        TransactionScored.of(TRANSACTION, Verdict(**FIELDS | {missing: None}))
