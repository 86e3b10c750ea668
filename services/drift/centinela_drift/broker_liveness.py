"""Whether the brokers still answer this Kafka client, and when to give the client up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from centinela.errors import DependencyUnavailable
from centinela.liveness.dependency import DependencyState

SILENCE_S = 6.0
"""A fetch is answered within 1.5 s, with or without records: after this long the brokers count as unavailable."""
PROBE_EVERY_S = 5.0
UNRESPONSIVE_S = 60.0
"""Longer than a request waits for its answer (40 s). A client that gets no answer for this long, from brokers that
answer another client, will not recover."""


class BrokerLiveness:
    """Tracks how long ago the brokers answered a fetch.

    Args:
        kafka: Told when the brokers stop answering fetches, and when they answer again.
        probe: Asks the brokers with another client; True where they answer it.
    """

    def __init__(self, kafka: DependencyState, probe: Callable[[], Awaitable[bool]]) -> None:
        self._kafka = kafka
        self._probe = probe
        self._unprobed_s = 0.0
        self._unresponsive_s = 0.0

    async def check(self, answer_age_s: float | None, elapsed_s: float) -> bool:
        """Check once; True while the brokers answer.

        Args:
            answer_age_s: How long ago a fetch was last answered; None where none was since partitions were assigned.
            elapsed_s: Seconds since the last check; where the process was frozen in between, only a few of them count.

        Raises:
            DependencyUnavailable: The brokers have answered the probe for ``UNRESPONSIVE_S``, and no fetch.
        """
        if answer_age_s is not None and answer_age_s <= SILENCE_S:
            self._unprobed_s = 0.0
            self._unresponsive_s = 0.0
            self._kafka.up()
            return True
        if answer_age_s is not None and self._kafka.reason is None:
            self._kafka.down("the brokers do not answer")
        self._unprobed_s += min(elapsed_s, PROBE_EVERY_S)
        if self._unprobed_s >= PROBE_EVERY_S:
            answered = await self._probe()
            self._unresponsive_s = self._unresponsive_s + self._unprobed_s if answered else 0.0
            self._unprobed_s = 0.0
            if not answered and self._kafka.reason is None:
                self._kafka.down("the brokers do not answer")
        if self._unresponsive_s >= UNRESPONSIVE_S:
            raise DependencyUnavailable(
                f"the brokers have answered another client for {self._unresponsive_s:.0f} s, but not this one",
                dependency="kafka",
            )
        return self._kafka.reason is None
