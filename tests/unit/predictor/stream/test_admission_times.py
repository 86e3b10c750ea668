"""A transaction ahead of its time is refused, whether or not fields that nobody knows are looked for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from centinela.features.known_fields import KnownFields
from centinela.kafka.port import Record
from centinela.times import to_ms
from centinela_predictor.state.admission import AdmissionRules, admit

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize("known", [None, KnownFields(frozenset({"v1"}), refuse=True)])
@pytest.mark.parametrize(
    ("occurred_at", "stamp_ms"),
    [("2026-01-09T00:00:00Z", to_ms(NOW)), ("2026-01-05T11:00:00Z", int(NOW.timestamp()))],
    ids=["in the future", "stamped in seconds"],
)
def test_a_transaction_ahead_of_its_time_is_a_dead_letter(
    known: KnownFields | None, occurred_at: str, stamp_ms: int
) -> None:
    value = b'{"transaction_id":"t","user_id":"u","occurred_at":"%s","amount":1.0}' % occurred_at.encode()
    record = Record("transactions", 0, 0, b"u", value, (), stamp_ms)
    admitted = admit([record], NOW, rules=AdmissionRules(known=known))
    assert [letter.reason for letter in admitted.refused] == ["time_in_future"]
    assert admitted.records == []
