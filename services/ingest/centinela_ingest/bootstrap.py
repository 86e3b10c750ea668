"""Builds the ingest service: adapters, application, server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import structlog
import uvicorn
from fastapi import FastAPI

from centinela import topics
from centinela.clock import Clock, SystemClock
from centinela.kafka import connect
from centinela.kafka.port import Consumer, Producer
from centinela.liveness.health import Health
from centinela.process.drain import Drain
from centinela_ingest.api.app import build_app
from centinela_ingest.api.handler import IngestHandler
from centinela_ingest.api.publisher import KAFKA, KafkaState, KafkaWatch, Publisher
from centinela_ingest.settings import IngestSettings

PATIENCE = 0.8
"""Share of a request's time after which Kafka, without an acknowledgement, counts as away: early enough to say so."""
_log = structlog.get_logger()


class Service:
    """The parts of a running ingest service. ``watch_kafka`` is to be run in a thread of its own.

    A failure that waiting does not mend sets ``failed`` and *stop*: the process ends, for the supervisor to start it
    again.
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
        self.health, self.failed, self._stop = Health(KAFKA), False, stop
        state = KafkaState(self.health)
        self.watch = KafkaWatch(
            consumer or connect.consumer(settings, group=None), (transactions_topic, labels_topic), state, stop
        )
        self.publisher = Publisher(
            producer or connect.producer(settings),
            state,
            clock,
            patience_s=settings.ingest_deadline_s * PATIENCE,
            most=settings.ingest_in_flight,
            on_fatal=self._fail,
        )
        handler = IngestHandler(
            settings.ingest_max_batch, transactions_topic=transactions_topic, labels_topic=labels_topic
        )
        self.app: FastAPI = build_app(handler, self.publisher, self.health, clock, settings)

    def watch_kafka(self) -> None:
        """Keep readiness true to Kafka's state until the stop."""
        try:
            self.watch.run()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        _log.error("process.failed", exc_info=error)
        self.failed = True
        self.health.died(type(error).__name__)
        self._stop.set()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: it would end the process by the signal instead of with exit code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: IngestSettings, stop: threading.Event) -> None:
    """Serve until *stop*; then finish the requests in flight and leave nothing unsent."""
    service = Service(settings, stop)
    watch = threading.Thread(target=service.watch_kafka, name="kafka-watch", daemon=True)
    config = uvicorn.Config(
        service.app,
        host=settings.ops_host,
        port=settings.ingest_port,
        loop="uvloop",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=max(1, int(settings.ingest_drain_s * 2 / 3)),
    )
    listener = _listen(settings.ops_host, settings.ingest_port)
    server = _Server(config)

    drains: list[Drain] = []

    def end_on_stop() -> None:
        stop.wait()
        drains.append(Drain(SystemClock(), settings.ingest_drain_s))
        server.should_exit = True

    threading.Thread(target=end_on_stop, name="stop", daemon=True).start()
    watch.start()
    _log.info("process.listening", host=settings.ops_host, port=listener.getsockname()[1])
    try:
        server.run(sockets=[listener])
    finally:
        stop.set()
        drain = drains[0] if drains else Drain(SystemClock(), settings.ingest_drain_s)
        drain.join(watch)
        drain.close("producer", service.publisher.close)
    _log.info("process.stopped")
    if service.failed:
        raise SystemExit(1)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; a taken port ends the process with a line that says so."""
    try:
        return socket.create_server((host, port), backlog=2_048)
    except OSError as error:
        raise SystemExit(
            f"centinela: cannot listen on {host}:{port} ({error.strerror}): set CENTINELA_INGEST_PORT to a free one"
        ) from error
