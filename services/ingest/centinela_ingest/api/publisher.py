"""Records to Kafka for requests that wait: acknowledged in time, or refused at once while Kafka is unavailable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from centinela.clock import Clock
from centinela.errors import DependencyUnavailable, InvalidRecord
from centinela.kafka.port import Consumer, Outgoing, Producer
from centinela.liveness.dependency import DependencyState
from centinela.web.backpressure import Deadline
from centinela.web.refusals import RequestRefused

KAFKA = "kafka"


class KafkaWatch:
    """Asks Kafka for *topics* regularly, so that readiness is known without traffic.

    Args:
        consumer: Used by this watch only.
        interval_s: Seconds between two checks.
    """

    def __init__(
        self,
        consumer: Consumer,
        topics: Sequence[str],
        kafka: DependencyState,
        stop: threading.Event,
        interval_s: float = 1.0,
    ) -> None:
        self._consumer = consumer
        self._topics = topics
        self._kafka = kafka
        self._stop = stop
        self._interval_s = interval_s

    def run(self) -> None:
        """Watch until *stop*; closes the consumer."""
        while not self._stop.is_set():
            self.check()
            self._stop.wait(self._interval_s)
        self._consumer.close()

    def check(self) -> None:
        """Ask once."""
        try:
            for topic in self._topics:
                partitions = self._consumer.partitions_of(topic)
                if not partitions:
                    self._kafka.down(f"no topic {topic}: run `centinela topics create`")
                    return
                self._consumer.end_offsets([min(partitions)])
        except DependencyUnavailable as error:
            self._kafka.down(str(error))
        else:
            self._kafka.up()


class Publisher:
    """Sends the records of a request and waits for all acknowledgements.

    Args:
        patience_s: Kafka counts as unavailable where it has not acknowledged for this long.
        max_waiting: Most requests that wait at once; the caller makes sure that there are no more.
        on_fatal: Called where the client fails in a way that a retry does not fix; the error also goes to the request.
    """

    def __init__(
        self,
        producer: Producer,
        kafka: DependencyState,
        clock: Clock,
        *,
        patience_s: float,
        max_waiting: int,
        on_fatal: Callable[[Exception], None],
    ) -> None:
        self._producer = producer
        self._kafka = kafka
        self._clock = clock
        self._patience_s = patience_s
        self._on_fatal = on_fatal
        self._threads = ThreadPoolExecutor(max_waiting, thread_name_prefix="publish")

    async def publish(self, records: Sequence[Outgoing], deadline: Deadline) -> None:
        """Return once Kafka has all *records*.

        Raises:
            DependencyUnavailable: It does not have all of them. The same request may be sent again: repeated ids are
                suppressed.
            RequestRefused: 504 at *deadline*, also safe to send again; 413 where Kafka does not take a record.
        """
        self._kafka.require()
        if not self._kafka.answered:
            raise DependencyUnavailable("Kafka has not answered yet", dependency=KAFKA)
        await deadline.answer(asyncio.get_running_loop().run_in_executor(self._threads, self._send, records, deadline))

    def close(self) -> None:
        """Finish what is in flight and release the producer."""
        self._threads.shutdown(wait=True)
        self._producer.close()

    def _send(self, records: Sequence[Outgoing], deadline: Deadline) -> None:
        patience_ends = self._clock.monotonic() + self._patience_s
        try:
            for delivery in [self._producer.send(record) for record in records]:
                delivery.wait(max(0.0, min(deadline.at, patience_ends) - self._clock.monotonic()))
        except DependencyUnavailable as error:
            if deadline.at < patience_ends and deadline.left() == 0.0:
                raise deadline.exceeded() from error
            self._kafka.down(str(error))
            raise
        except InvalidRecord as error:
            raise RequestRefused(413, error.reason, error.detail) from error
        except Exception as error:
            self._on_fatal(error)
            raise
