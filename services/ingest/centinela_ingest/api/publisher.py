"""Records to Kafka for requests that wait: acknowledged in time, or refused at once while Kafka is away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from centinela.clock import Clock
from centinela.errors import DependencyUnavailable, InvalidRecord
from centinela.kafka.port import Consumer, Outgoing, Producer
from centinela.liveness.health import Health
from centinela.telemetry.metrics import DEPENDENCY_ERRORS, DEPENDENCY_UP
from centinela.web.backpressure import Deadline

KAFKA = "kafka"
_log = structlog.get_logger()


class KafkaState:
    """Whether Kafka answers, for all threads: shown in *health* and the metrics, logged once per change."""

    def __init__(self, health: Health) -> None:
        self._health, self._lock = health, threading.Lock()
        self._up: bool | None = None

    def up(self) -> None:
        """Kafka answered."""
        with self._lock:
            if not self._up:
                _log.info("kafka.reached")
            self._up = True
            self._health.met(KAFKA)
            DEPENDENCY_UP.labels(KAFKA).set(1)

    def down(self, reason: str) -> None:
        """Kafka did not answer."""
        with self._lock:
            if self._up is not False:
                _log.warning("kafka.waited_for", reason=reason)
            self._up = False
            self._health.wait_for(KAFKA, reason)
            DEPENDENCY_UP.labels(KAFKA).set(0)
            DEPENDENCY_ERRORS.labels(KAFKA).inc()

    def require(self) -> None:
        """Raises ``DependencyUnavailable`` while Kafka is known not to answer."""
        reason = self._health.unmet().get(KAFKA)
        if reason is not None:
            raise DependencyUnavailable(reason, dependency=KAFKA)


class KafkaWatch:
    """Asks Kafka for *topics* every so often, so that readiness is known without traffic.

    Args:
        consumer: Used by this watch only.
    """

    def __init__(
        self, consumer: Consumer, topics: Sequence[str], state: KafkaState, stop: threading.Event, every_s: float = 1.0
    ) -> None:
        self._consumer, self._topics, self._state, self._stop, self._every = consumer, topics, state, stop, every_s

    def run(self) -> None:
        """Watch until *stop*; closes the consumer."""
        while not self._stop.is_set():
            self.look()
            self._stop.wait(self._every)
        self._consumer.close()

    def look(self) -> None:
        """Ask once."""
        try:
            for topic in self._topics:
                partitions = self._consumer.partitions_of(topic)
                if not partitions:
                    self._state.down(f"no topic {topic}: run `centinela topics create`")
                    return
                self._consumer.end_offsets([min(partitions)])
        except DependencyUnavailable as error:
            self._state.down(str(error))
        else:
            self._state.up()


class Publisher:
    """Sends the records of a request and waits for all acknowledgements.

    Args:
        patience_s: Kafka counts as away where it has not acknowledged for so long.
        most: Requests that wait at once; the caller sees to it that there are no more.
        on_fatal: Called where the client fails in a way that trying again does not mend; the error goes to the request
            too.
    """

    def __init__(
        self,
        producer: Producer,
        state: KafkaState,
        clock: Clock,
        *,
        patience_s: float,
        most: int,
        on_fatal: Callable[[Exception], None],
    ) -> None:
        self._producer, self._state, self._clock, self._patience, self._on_fatal = (
            producer,
            state,
            clock,
            patience_s,
            on_fatal,
        )
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="publish")

    async def publish(self, records: Sequence[Outgoing], deadline: Deadline) -> None:
        """Return once Kafka has all *records*.

        Raises:
            DependencyUnavailable: It has not, or not all: sending the same again is safe, repeated ids are suppressed.
            RequestUnserved: 504, likewise, at *deadline*.
        """
        self._state.require()
        await deadline.answer(asyncio.get_running_loop().run_in_executor(self._threads, self._send, records, deadline))

    def close(self) -> None:
        """Finish what is in flight and release the producer."""
        self._threads.shutdown(wait=True)
        self._producer.close()

    def _send(self, records: Sequence[Outgoing], deadline: Deadline) -> None:
        patience_ends = self._clock.monotonic() + self._patience
        try:
            for delivery in [self._producer.send(record) for record in records]:
                delivery.wait(max(0.0, min(deadline.at, patience_ends) - self._clock.monotonic()))
        except DependencyUnavailable as error:
            if deadline.at < patience_ends and deadline.left() == 0.0:
                raise deadline.exceeded() from error
            self._state.down(str(error))
            raise
        except InvalidRecord:
            raise
        except Exception as error:
            self._on_fatal(error)
            raise
