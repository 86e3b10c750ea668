"""Deadlines for calls that have none, and a pause between attempts to reach a broker that is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

from centinela.errors import DependencyUnavailable

T = TypeVar("T")


class DeadlineExceeded(Exception):
    """The call did not return in time and still runs."""


class Guard:
    """Runs calls one after another on a daemon thread, so that one that hangs holds up nobody.

    After a ``DeadlineExceeded`` the guard is stuck behind that call: throw it away.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def run(self, call: Callable[[], T], timeout_s: float) -> T:
        """The result of *call*.

        Raises:
            DeadlineExceeded: It did not return within *timeout_s*.
        """
        done = threading.Event()
        result: list[T] = []
        error: list[BaseException] = []

        def attempt() -> None:
            try:
                result.append(call())
            except BaseException as raised:
                error.append(raised)
            finally:
                done.set()

        self._calls.put(attempt)
        if not done.wait(timeout_s):
            raise DeadlineExceeded(f"no answer within {timeout_s:g} s")
        if error:
            raise error[0]
        return result[0]

    def close(self) -> None:
        """End the thread once it is idle."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


class Connection(Generic[T]):
    """A client made when first needed, by one thread at a time; a failed attempt is not repeated at once.

    Args:
        make: Builds the client; raises ``DependencyUnavailable`` where the broker is away.
        retry_after_s: Within this time after a failed attempt, asking again fails at once.
    """

    def __init__(self, make: Callable[[], T], retry_after_s: float = 0.5) -> None:
        self._make, self._retry_after = make, retry_after_s
        self._lock = threading.Lock()
        self._client: T | None = None
        self._failed_at = float("-inf")

    def get(self) -> T:
        """The client.

        Raises:
            DependencyUnavailable: It cannot be made now.
        """
        if (client := self._client) is not None:
            return client
        with self._lock:
            if self._client is None:
                if time.monotonic() - self._failed_at < self._retry_after:
                    raise DependencyUnavailable("Kafka does not answer", dependency="kafka")
                try:
                    self._client = self._make()
                except DependencyUnavailable:
                    self._failed_at = time.monotonic()
                    raise
            return self._client

    @property
    def current(self) -> T | None:
        """The client, if there is one."""
        return self._client

    def drop(self) -> T | None:
        """Forget the client, so that the next ``get`` makes a new one; the old one is returned."""
        with self._lock:
            client, self._client = self._client, None
            return client
