"""Records as producers write them, and what each becomes: an event, or a dead letter with its reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from centinela.codec import Decoder
from centinela.errors import InvalidRecord
from centinela.events import Event, LabelReported, TransactionReceived

DECODERS: dict[str, Decoder[Event]] = {
    "transactions": Decoder(TransactionReceived),
    "labels": Decoder(LabelReported),
}
VALID: dict[str, dict[str, object]] = {
    "transactions": {"transaction_id": "t", "occurred_at": "2025-02-07T12:00:00Z", "amount": 5.5, "user_id": "u"},
    "labels": {
        "transaction_id": "t",
        "is_fraud": True,
        "occurred_at": "2025-02-07T12:00:00Z",
        "reported_at": "2025-02-09T12:00:00Z",
        "user_id": "u",
    },
}


class Row(NamedTuple):
    """*changes* to a valid record of *topic*; *expected* is the value of the changed field, or the reason."""

    name: str
    topic: str
    changes: dict[str, object]
    expected: object


ROWS = (
    Row(
        "a time with the offset of another zone",
        "transactions",
        {"occurred_at": "2025-02-07T12:00:00+05:30"},
        datetime(2025, 2, 7, 6, 30, tzinfo=UTC),
    ),
    Row("a time without a zone", "transactions", {"occurred_at": "2025-02-07T12:00:00"}, "invalid_field"),
    Row("a time without a zone", "labels", {"reported_at": "2025-02-07T12:00:00"}, "invalid_field"),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.topic}: {row.name}")
def test_a_record_is_the_event_it_says_or_a_dead_letter(row: Row) -> None:
    value = json.dumps(VALID[row.topic] | row.changes).encode()
    [decoded] = DECODERS[row.topic].decode_many([value])
    if isinstance(decoded, InvalidRecord):
        assert decoded.reason == row.expected
    else:
        assert [getattr(decoded, field) for field in row.changes] == [row.expected]
