"""``--as-of``: what it takes, and what it says of the rest."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from centinela.errors import CentinelaError
from centinela_trainer.commands.options import parse_as_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2025-02-07", "2025-02-07Z", "2025-02-07T00:00:00Z", "2025-02-07T01:00:00+01:00"])
def test_a_date_or_a_time_is_taken_and_utc_where_it_names_no_zone(text: str) -> None:
    assert parse_as_of(text, NOW) == datetime(2025, 2, 7, tzinfo=UTC)
    assert parse_as_of(None, NOW) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("yesterday", "--as-of 'yesterday' is not a time: write 2025-02-07 or "),
        ("2099-01-01", "--as-of 2099-01-01: as of 2099-01-01T00:00:00+00:00 is more than a day ahead of 2026-03-01"),
        ("9999-12-31T23:59:59-23:59", "is not a time"),
        ("1969-12-31", "before 1970"),
    ],
)
def test_what_no_event_can_have_is_refused(text: str, problem: str) -> None:
    with pytest.raises(CentinelaError) as refused:
        parse_as_of(text, NOW)
    assert problem in str(refused.value)
