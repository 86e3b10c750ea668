"""A client that is created when first needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from centinela.errors import DependencyUnavailable

T = TypeVar("T")


class Connection(Generic[T]):
    """A client created when first needed, by one thread at a time; a failed attempt is not repeated at once.

    Args:
        make: Builds the client; raises ``DependencyUnavailable`` where the broker does not answer.
        retry_after_s: Within this time after a failed attempt, another one fails at once.
    """

    def __init__(self, make: Callable[[], T], retry_after_s: float = 0.5) -> None:
        self._make = make
        self._retry_after = retry_after_s
        self._lock = threading.Lock()
        self._client: T | None = None
        self._failed_at = float("-inf")

    def get(self) -> T:
        """The client.

        Raises:
            DependencyUnavailable: It cannot be created now.
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
        """Forget the client, so that the next ``get`` creates another; the old one is returned."""
        with self._lock:
            client = self._client
            self._client = None
            return client
