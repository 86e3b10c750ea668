"""Requests in flight and their deadlines."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from centinela.clock import SystemClock
from centinela.testing.clock import FixedClock
from centinela.web.backpressure import Deadline, InFlight
from centinela.web.refusals import RequestRefused

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_past_the_limit_a_request_is_refused_and_room_comes_back() -> None:
    requests = InFlight(2, "test")
    with requests.one(), requests.one(), pytest.raises(RequestRefused) as refused, requests.one():
        raise AssertionError("a third was let in")
    assert (refused.value.status, refused.value.error, refused.value.headers) == (
        429,
        "overloaded",
        {"Retry-After": "1"},
    )
    with requests.one(), requests.one():
        pass


def test_a_request_that_fails_gives_its_room_back() -> None:
    requests = InFlight(1, "test")
    with pytest.raises(ZeroDivisionError), requests.one():
        raise ZeroDivisionError
    with requests.one():
        pass


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, 5.0), ("200", 0.2), ("1", 0.001), ("5000", 5.0), ("999999999999999", 5.0)]
)
def test_a_client_may_shorten_its_time_but_not_lengthen_it(header: str | None, seconds: float) -> None:
    clock = FixedClock(NOW)
    deadline = Deadline(clock, header, 5.0)
    assert deadline.left() == seconds
    clock.set(NOW + timedelta(seconds=seconds / 2))
    assert deadline.left() == pytest.approx(seconds / 2)
    clock.set(NOW + timedelta(minutes=1))
    assert deadline.left() == 0.0


async def test_a_body_that_does_not_come_is_408_and_an_answer_that_does_not_504() -> None:
    deadline = Deadline(SystemClock(), "20", 5.0)
    with pytest.raises(RequestRefused) as late:
        await deadline.body(asyncio.Event().wait())  # type: ignore[arg-type]
    with pytest.raises(RequestRefused) as unanswered:
        await deadline.answer(asyncio.Event().wait())
    assert [(e.value.status, e.value.error) for e in (late, unanswered)] == [
        (408, "body_timeout"),
        (504, "deadline_exceeded"),
    ]


async def test_what_comes_in_time_is_given_on() -> None:
    async def body() -> bytes:
        return b"whole"

    assert await Deadline(SystemClock(), None, 5.0).body(body()) == b"whole"
