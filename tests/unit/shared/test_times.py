"""Instants that people write, and instants as integers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from centinela.times import parse_instant

NOON = datetime(2025, 2, 7, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-02-07", datetime(2025, 2, 7, tzinfo=UTC)),
        ("2025-02-07Z", datetime(2025, 2, 7, tzinfo=UTC)),
        ("2025-02-07T12:00", NOON),
        ("2025-02-07 12:00:00", NOON),
        ("2025-02-07T12:00:00Z", NOON),
        ("2025-02-07T12:00:00z", NOON),
        ("2025-02-07T17:30:00+05:30", NOON),
        ("20250207T120000Z", NOON),
    ],
)
def test_a_person_s_time_is_an_instant_in_utc(text: str, expected: datetime) -> None:
    assert parse_instant(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2025-02-30",
        "2025-02-07T12:00:00+01:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
    ],
)
def test_what_is_no_time_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="write 2025-02-07 or 2025-02-07T12:00:00"):
        parse_instant(text)
