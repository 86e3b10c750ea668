"""The gateway as a process: what it is made of, its start and its end."""

from __future__ import annotations

import gc
import sys
import threading

import structlog

from centinela.clock import Clock, SystemClock
from centinela.features.known_fields import known_fields
from centinela.features.rates_file import rates_of
from centinela.kafka.connect import producer
from centinela.liveness.health import Health
from centinela.liveness.threads import GuardedThread
from centinela.process.drain import Drain
from centinela.process.start import failed
from centinela.security.access import api_keys
from centinela.web.server import HttpServer, bind
from centinela_predictor.bootstrap import build_models
from centinela_predictor.gateway.app import build_app
from centinela_predictor.gateway.bootstrap import build_replica
from centinela_predictor.gateway.delivery import VerdictDelivery
from centinela_predictor.gateway.gateway import Gateway
from centinela_predictor.gateway.kafka_link import KafkaLink
from centinela_predictor.gateway.metrics import OUTBOX_BYTES, OUTBOX_OLDEST, OUTBOX_RECORDS
from centinela_predictor.gateway.outbox import Outbox
from centinela_predictor.gateway.outbox_sender import OutboxSender, restore
from centinela_predictor.gateway.readiness import Readiness
from centinela_predictor.gateway.requests import RequestParser
from centinela_predictor.gateway.verdict_cache import VerdictCache
from centinela_predictor.models.bundle_store import Downloads
from centinela_predictor.settings import PredictorSettings

_log = structlog.get_logger(__name__)
SWITCH_INTERVAL_S = 0.001
"""A busy follower releases the interpreter after this long, so that a request does not wait for Python's usual 5 ms at
each hand-over."""


class GatewayProcess:
    """Everything the gateway runs; ``port`` is where it listens, ``state`` what it followed.

    Raises:
        SystemExit: The port is taken.
    """

    def __init__(
        self, settings: PredictorSettings, stop: threading.Event, *, registry: Downloads | None = None
    ) -> None:
        clock = SystemClock()
        listening = bind(settings.ops_host, settings.gateway_port, "CENTINELA_GATEWAY_PORT")
        self._settings = settings
        self._stop = stop
        self.health = Health("model")
        self._cache = VerdictCache(settings.gateway_verdicts)
        self._models = build_models(settings, "gateway", self.health, clock, stop, registry=registry)
        self._replica = build_replica(settings, self._cache, clock, self.health, stop)
        self.state = self._replica.state
        self._producer = producer(settings, client="confluent", linger_ms=1)
        self._outbox = _open_outbox(settings, self._cache, clock)
        link = KafkaLink(self._outbox, clock)
        readiness = Readiness(self.health, link, self._outbox)
        delivery = VerdictDelivery(
            self._producer, self._outbox, link, self._cache, clock, settings.gateway_outbox_after_s
        )
        self._gateway = Gateway(
            self._models.core, self.state, delivery, self._cache, clock, settings.gateway_in_flight, readiness.missing
        )
        self._sent_all = threading.Event()
        sender = OutboxSender(self._outbox, self._producer, link, self._cache, clock, self._sent_all)
        app = build_app(
            self._gateway,
            RequestParser(known_fields(settings, refuse=settings.unknown_fields == "refuse"), rates_of(settings)),
            self._models.slot,
            readiness,
            clock,
            deadline_s=settings.gateway_deadline_s,
            in_flight=settings.gateway_in_flight,
            keys=api_keys(settings),
        )
        self._server = HttpServer(app, listening, settings.drain_timeout_s * 2 / 3, self.health, stop.set)
        self.port = self._server.port
        self._core_threads = [
            GuardedThread(name, target, self.health, stop.set)
            for name, target in (("decide", self._gateway.work), ("deliver", delivery.work))
        ]
        self._outbox_thread = GuardedThread("outbox", sender.run, self.health, stop.set)
        self._followers = [self._models.thread, *self._replica.threads]

    def run(self) -> int:
        """Serve until the stop event, then finish what is in flight; the exit code."""
        self.start()
        frozen = False
        while not self._stop.wait(0.5):
            if not frozen and self.health.ready:
                frozen = True
                gc.collect()
                gc.freeze()
                _log.info("gateway.ready", port=self.port)
        self.close()
        return 0 if self.health.live else 1

    def start(self) -> None:
        """Listen and follow from now on."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        for thread in (*self._core_threads, self._outbox_thread, *self._followers):
            thread.start()
        self._server.start()

    def knows(self, transaction_id: str) -> bool:
        """Whether a verdict on *transaction_id* is remembered."""
        return self._cache.get(transaction_id) is not None

    def close(self) -> None:
        """Take no more requests, answer those in flight, send what can be sent, release."""
        drain = Drain(SystemClock(), self._settings.drain_timeout_s)
        self._stop.set()
        self._server.stop()
        self._gateway.stop()
        drain.join(*self._core_threads)
        self._sent_all.set()
        drain.join(self._outbox_thread)
        if waiting := len(self._outbox):
            _log.warning("outbox.not_empty", records=waiting)
        self._outbox.close()
        for part, close in (("producer", self._producer.close), ("models", self._models.producer.close)):
            drain.close(part, close)
        drain.join(*self._followers)
        drain.close("state", self._replica.close)
        _log.info("process.stopped", port=self.port)


def _open_outbox(settings: PredictorSettings, cache: VerdictCache, clock: Clock) -> Outbox:
    """The outbox on disk, shown in the metrics; its verdicts are in *cache*."""
    outbox = Outbox(
        settings.outbox_file,
        clock,
        max_records=settings.gateway_outbox_records,
        max_bytes=settings.gateway_outbox_bytes,
    )
    if waiting := restore(outbox, cache):
        _log.warning("outbox.not_empty", records=waiting)
    OUTBOX_RECORDS.set_function(lambda: len(outbox))
    OUTBOX_BYTES.set_function(lambda: outbox.size_bytes)
    OUTBOX_OLDEST.set_function(lambda: outbox.oldest_s)
    return outbox


def run_gateway(settings: PredictorSettings, stop: threading.Event) -> int:
    """Run the gateway until *stop*."""
    process = GatewayProcess(settings, stop)
    return process.run() and failed(process.health.reason or "")
