"""Builds the ingest service: adapters, application, server."""

from __future__ import annotations

import threading

import structlog

from centinela import topics
from centinela.clock import Clock, SystemClock
from centinela.features.known_fields import known_fields
from centinela.features.rates_file import rates_of
from centinela.kafka import connect
from centinela.kafka.port import Consumer, Producer
from centinela.liveness.dependency import DependencyState
from centinela.liveness.health import Health
from centinela.liveness.threads import GuardedThread
from centinela.process.drain import Drain
from centinela.web.server import HttpServer, bind
from centinela_ingest.api.app import build_app
from centinela_ingest.api.handler import IngestHandler
from centinela_ingest.api.publisher import KAFKA, KafkaWatch, Publisher
from centinela_ingest.settings import IngestSettings

PATIENCE = 0.8
"""Share of a request's time after which Kafka, without an acknowledgement, counts as unavailable: early enough to
answer so."""
_log = structlog.get_logger(__name__)


class Service:
    """The parts of a running ingest service. ``watch.run`` needs a thread of its own.

    A failure that waiting does not fix ends *health* and sets *stop*: the process ends, for the supervisor to restart
    it.
    """

    def __init__(
        self,
        settings: IngestSettings,
        stop: threading.Event,
        *,
        producer: Producer | None = None,
        consumer: Consumer | None = None,
        clock: Clock | None = None,
        transactions_topic: str = topics.TRANSACTIONS.name,
        labels_topic: str = topics.LABELS.name,
    ) -> None:
        clock = clock or SystemClock()
        self.health = Health(KAFKA)
        self._stop = stop
        kafka = DependencyState(KAFKA, self.health, clock)
        self.watch = KafkaWatch(
            consumer or connect.consumer(settings, group=None), (transactions_topic, labels_topic), kafka, stop
        )
        self.publisher = Publisher(
            producer or connect.producer(settings),
            kafka,
            clock,
            patience_s=settings.ingest_deadline_s * PATIENCE,
            max_waiting=settings.ingest_in_flight,
            on_fatal=self._fail,
        )
        handler = IngestHandler(
            settings.ingest_max_batch,
            known_fields(settings, refuse=settings.unknown_fields == "refuse"),
            rates_of(settings),
            transactions_topic=transactions_topic,
            labels_topic=labels_topic,
        )
        self.app = build_app(handler, self.publisher, self.health, clock, settings)

    def _fail(self, error: Exception) -> None:
        _log.error("process.failed", exc_info=error)
        self.health.died(type(error).__name__)
        self._stop.set()


def run(settings: IngestSettings, stop: threading.Event) -> int:
    """Serve until *stop*; then finish the requests in flight and leave nothing unsent. The exit code."""
    listening = bind(settings.ops_host, settings.ingest_port, "CENTINELA_INGEST_PORT")
    service = Service(settings, stop)
    watch = GuardedThread("kafka-watch", service.watch.run, service.health, stop.set)
    server = HttpServer(service.app, listening, settings.ingest_drain_s * 2 / 3, service.health, stop.set)
    watch.start()
    server.start()
    stop.wait()
    drain = Drain(SystemClock(), settings.ingest_drain_s)
    server.stop()
    drain.join(watch)
    drain.close("producer", service.publisher.close)
    _log.info("process.stopped")
    return 0 if service.health.live else 1
