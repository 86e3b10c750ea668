"""Bulk sending without silent loss: what the broker did not acknowledge is counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from centinela.clock import Clock
from centinela.errors import CentinelaError, DependencyUnavailable, InvalidRecord
from centinela.kafka.port import Delivery, Outgoing, Producer

_RETRY_S = 0.25


class DeliveryIncomplete(CentinelaError):
    """Kafka did not acknowledge everything: says how many records are missing."""


class DeliveryWindow:
    """Sends through *producer*, with a limited number of deliveries in flight, and waits for each.

    Args:
        wait: Waits that many seconds; returns True where the run should stop (``threading.Event.wait``).
        patience_s: How long Kafka may accept nothing before the run is abandoned.
        window: Most deliveries in flight.
    """

    def __init__(
        self,
        producer: Producer,
        clock: Clock,
        wait: Callable[[float], bool],
        *,
        patience_s: float = 60.0,
        window: int = 20_000,
    ) -> None:
        self._producer = producer
        self._clock = clock
        self._wait = wait
        self._patience_s = patience_s
        self._window = window
        self._in_flight: deque[Delivery] = deque()
        self.acknowledged = 0
        self.undelivered = 0

    def send(self, record: Outgoing) -> None:
        """Queue *record*; waits where the client's queue is full or Kafka is unavailable.

        Raises:
            DeliveryIncomplete: Kafka accepted nothing for longer than the patience, or the run was stopped.
            InvalidRecord: The record is too large for the topic.
        """
        deadline = self._clock.monotonic() + self._patience_s
        while True:
            try:
                self._in_flight.append(self._producer.send(record))
                break
            except DependencyUnavailable as error:
                if self._clock.monotonic() >= deadline or self._wait(_RETRY_S):
                    self.undelivered += 1
                    self._await_oldest(0)
                    raise self._incomplete(str(error)) from error
        if len(self._in_flight) >= self._window:
            self._await_oldest(self._window // 2)

    def flush(self) -> None:
        """Wait for every delivery.

        Raises:
            DeliveryIncomplete: Some were not acknowledged, now or before.
        """
        self._await_oldest(0)
        if self.undelivered:
            raise self._incomplete("not acknowledged")

    def _await_oldest(self, left: int) -> None:
        """Wait for the oldest deliveries until *left* are in flight, with one deadline for all."""
        deadline = self._clock.monotonic() + self._patience_s
        while len(self._in_flight) > left:
            try:
                self._in_flight.popleft().wait(max(0.0, deadline - self._clock.monotonic()))
                self.acknowledged += 1
            except (DependencyUnavailable, InvalidRecord):
                self.undelivered += 1

    def _incomplete(self, reason: str) -> DeliveryIncomplete:
        return DeliveryIncomplete(f"{self.undelivered} records were not delivered ({self.acknowledged} were): {reason}")
