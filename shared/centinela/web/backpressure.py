"""What an HTTP service accepts: a limited number of requests at once, each for a limited time.

For one event loop: not thread-safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from prometheus_client import Gauge

from centinela.clock import Clock
from centinela.web.refusals import RequestRefused, retry_after

T = TypeVar("T")
TIMEOUT_HEADER = "X-Request-Timeout-Ms"
RETRY_AFTER_S = 1
EXPORTED_BY = ("gateway", "ingest")
REQUESTS_IN_FLIGHT = Gauge(
    "centinela_requests_in_flight", "Requests that are being served, as the limit counts them.", ["service"]
)
_TIMEOUT_DIGITS = 10


class Deadline:
    """The time that one request may take, from now on.

    Args:
        header: What the client asks for (``TIMEOUT_HEADER``); it can only shorten the limit.
        most_s: The service's own limit.

    Raises:
        RequestRefused: 400, the header is not a whole number of milliseconds.
    """

    def __init__(self, clock: Clock, header: str | None, most_s: float) -> None:
        self._clock = clock
        self.seconds = most_s if header is None else min(_milliseconds(header) / 1000, most_s)
        self.at = clock.monotonic() + self.seconds

    def left(self) -> float:
        """Seconds left, at least 0.0."""
        return max(0.0, self.at - self._clock.monotonic())

    async def body(self, reading: Awaitable[bytes]) -> bytes:
        """The body that *reading* returns.

        Raises:
            RequestRefused: 408, it did not arrive completely in time.
        """
        try:
            return await asyncio.wait_for(reading, self.left())
        except TimeoutError:
            raise RequestRefused(
                408, "body_timeout", f"the body did not arrive completely within {self.seconds:g} s"
            ) from None

    async def answer(self, serving: Awaitable[T]) -> T:
        """The answer that *serving* returns; it is cancelled at the deadline.

        Raises:
            RequestRefused: 504, there was no answer in time.
        """
        try:
            return await asyncio.wait_for(serving, self.left())
        except TimeoutError:
            raise self.exceeded() from None

    def exceeded(self) -> RequestRefused:
        """The refusal once the time is over."""
        return RequestRefused(
            504,
            "deadline_exceeded",
            f"no answer within {self.seconds:g} s; send the same request again: what was already done remains valid",
            headers=retry_after(RETRY_AFTER_S),
        )


def overloaded(detail: str) -> RequestRefused:
    """The refusal of a request because too many others are being served."""
    return RequestRefused(429, "overloaded", detail, headers=retry_after(RETRY_AFTER_S))


class InFlight:
    """Counts requests that are being served, up to a limit.

    Args:
        limit: At most this many at once; the next one is refused.
        service: Label of the metric.
    """

    def __init__(self, limit: int, service: str) -> None:
        self._limit = limit
        self._count = 0
        self._gauge = REQUESTS_IN_FLIGHT.labels(service)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Serve one request inside.

        Raises:
            RequestRefused: 429, there are too many.
        """
        if self._count >= self._limit:
            raise overloaded(f"{self._limit} requests are in flight, and no more are taken")
        self._count += 1
        self._gauge.set(self._count)
        try:
            yield
        finally:
            self._count -= 1
            self._gauge.set(self._count)


def _milliseconds(header: str) -> int:
    if header.isascii() and header.isdigit() and (value := int(header[:_TIMEOUT_DIGITS])) > 0:
        return value
    raise RequestRefused(400, "invalid_header", f"{TIMEOUT_HEADER} must be a whole number of milliseconds, at least 1")
