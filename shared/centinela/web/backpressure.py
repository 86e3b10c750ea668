"""What an HTTP service takes on: so many requests at once, each for so long.

For one event loop: nothing here is thread-safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from prometheus_client import Gauge

from centinela.clock import Clock
from centinela.errors import CentinelaError

T = TypeVar("T")
TIMEOUT_HEADER = "X-Request-Timeout-Ms"
RETRY_AFTER_S = 1
REQUESTS_IN_FLIGHT = Gauge(
    "centinela_requests_in_flight", "Requests that are being served: those that a limit holds for.", ["service"]
)
REFUSALS = {
    408: "The body did not come within the time allowed.",
    429: (
        "As many requests as allowed are in flight; nothing of this one was looked at. Send it again after"
        " `Retry-After`."
    ),
    504: "The time allowed is over. Send the same request again: what was done of it stands.",
}
"""What the statuses of the refusals here mean, for descriptions of an API."""
TIMEOUT_PARAMETER: dict[str, object] = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "integer", "minimum": 1},
    "description": (
        "Milliseconds that the request may take; the service's own limit where that is shorter, or where this is"
        " missing."
    ),
}


class RequestUnserved(CentinelaError):
    """A request that was not served, through no fault of its content.

    Args:
        status: 400, 408, 429 or 504.
        error: A constant in snake_case.
    """

    def __init__(self, status: int, error: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.error, self.detail = status, error, detail
        self.headers = {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 504) else {}


class Deadline:
    """The time that one request may take, from now on.

    Args:
        header: The client's wish (``TIMEOUT_HEADER``), which can only shorten.
        most_s: The service's own limit.

    Raises:
        RequestUnserved: 400, the header is no whole number of milliseconds.
    """

    def __init__(self, clock: Clock, header: str | None, most_s: float) -> None:
        self._clock, self.seconds = clock, most_s
        if header is not None:
            if not (header.isascii() and header.isdigit() and int(header[:10]) > 0):
                raise RequestUnserved(
                    400, "invalid_header", f"{TIMEOUT_HEADER} must be a whole number of milliseconds from 1 on"
                )
            self.seconds = min(int(header[:10]) / 1000, most_s)
        self.at = clock.monotonic() + self.seconds

    def left(self) -> float:
        """Seconds left, 0.0 at least."""
        return max(0.0, self.at - self._clock.monotonic())

    async def body(self, reading: Awaitable[bytes]) -> bytes:
        """The body that *reading* gives.

        Raises:
            RequestUnserved: 408, it has not come whole in time.
        """
        try:
            return await asyncio.wait_for(reading, self.left())
        except TimeoutError:
            raise RequestUnserved(
                408, "body_timeout", f"the body did not come whole within {self.seconds:g} s"
            ) from None

    async def answer(self, serving: Awaitable[T]) -> T:
        """The answer that *serving* gives; where it does not, it is cancelled.

        Raises:
            RequestUnserved: 504, there was none in time.
        """
        try:
            return await asyncio.wait_for(serving, self.left())
        except TimeoutError:
            raise self.exceeded() from None

    def exceeded(self) -> RequestUnserved:
        """The refusal once the time is over."""
        return RequestUnserved(
            504,
            "deadline_exceeded",
            f"no answer within {self.seconds:g} s; the same request may be sent again, and what was done stands",
        )


class InFlight:
    """Counts requests being served, up to a limit.

    Args:
        limit: So many at once; the next one is refused.
        service: Label of the metric.
    """

    def __init__(self, limit: int, service: str) -> None:
        self._limit, self._count = limit, 0
        self._gauge = REQUESTS_IN_FLIGHT.labels(service)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Serve one request inside.

        Raises:
            RequestUnserved: 429, there are too many.
        """
        if self._count >= self._limit:
            raise RequestUnserved(429, "overloaded", f"{self._limit} requests are in flight, and no more are taken")
        self._count += 1
        self._gauge.set(self._count)
        try:
            yield
        finally:
            self._count -= 1
            self._gauge.set(self._count)
