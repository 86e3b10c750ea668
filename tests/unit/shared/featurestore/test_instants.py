"""Which feature row is the newest, and which is too old: to the microsecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from centinela.featurestore.instants import microseconds, newest_of_each, without_expired
from centinela.times import EPOCH, from_us

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@given(st.datetimes(min_value=EPOCH.replace(tzinfo=None)))
def test_an_instant_survives_microseconds_whatever_its_zone(naive: datetime) -> None:
    utc = naive.replace(tzinfo=UTC)
    assert from_us(microseconds(naive)) == from_us(microseconds(utc.astimezone(timezone(timedelta(hours=-5))))) == utc


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5))))
def test_the_newest_row_of_each_entity_is_kept_and_of_one_instant_the_last(rows: list[tuple[str, int]]) -> None:
    kept = newest_of_each((key, at, number) for number, (key, at) in enumerate(rows))
    for key in {key for key, _ in rows}:
        greatest = max(at for other, at in rows if other == key)
        last = max(number for number, (other, at) in enumerate(rows) if (other, at) == (key, greatest))
        assert kept[key] == (greatest, last)
    assert set(kept) == {key for key, _ in rows}


@pytest.mark.parametrize(
    ("age", "ttl", "served"),
    [
        (DAY - timedelta(microseconds=1), DAY, True),
        (DAY, DAY, True),
        (DAY + timedelta(microseconds=1), DAY, False),
        (900 * DAY, None, True),
        (900 * DAY, timedelta(0), True),
        (-DAY, DAY, True),
    ],
)
def test_a_row_is_served_up_to_and_with_its_time_to_live(age: timedelta, ttl: timedelta | None, served: bool) -> None:
    row = (NOW - age, {"x": 1})
    assert without_expired([row], ttl, NOW) == [row if served else (None, None)]


def test_what_was_never_written_reads_as_nothing_even_without_a_time_to_live() -> None:
    assert without_expired([(EPOCH, {"x": None}), (None, None)], None, NOW) == [(None, None), (None, None)]
