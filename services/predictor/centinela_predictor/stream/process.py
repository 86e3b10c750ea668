"""The stream as a process: its parts, its start and its end."""

from __future__ import annotations

import gc
import threading

import structlog

from centinela.clock import SystemClock
from centinela.errors import CentinelaError
from centinela.liveness.health import Health
from centinela.process.drain import Drain
from centinela.process.start import failed
from centinela.web.ops import OpsRoute, OpsServer
from centinela.web.server import bind
from centinela_predictor.bootstrap import build_models
from centinela_predictor.models.bundle_store import Downloads
from centinela_predictor.models.slot import describe
from centinela_predictor.settings import PredictorSettings
from centinela_predictor.stream.bootstrap import build_stream

_log = structlog.get_logger(__name__)
_COLLECT_EVERY = 100_000
"""Objects more than at the last look for garbage in cycles, until the next: above the 50,000 or so of a batch in hand,
of which none is in a cycle."""


class StreamProcess:
    """Everything the stream runs; ``port`` is where its health and metrics are.

    Raises:
        SystemExit: The port is taken.
    """

    def __init__(
        self, settings: PredictorSettings, stop: threading.Event, *, registry: Downloads | None = None
    ) -> None:
        clock = SystemClock()
        self._settings = settings
        self._stop = stop
        self.health = Health("model", "kafka", "handler")
        self._models = build_models(settings, "stream", self.health, clock, stop, registry=registry)
        slot = self._models.slot
        self._ops = OpsServer(
            self.health,
            bind(settings.ops_host, settings.predictor_port, "CENTINELA_PREDICTOR_PORT"),
            [OpsRoute("/model", lambda: describe(slot.pair))],
            model_loaded=lambda: slot.loaded,
        )
        self.port = self._ops.port
        self._stream = build_stream(settings, self._models.core, slot, self.health, clock, stop)

    def run(self) -> int:
        """Score until the stop event; the batch in hand is committed first. The exit code."""
        gc.set_threshold(_COLLECT_EVERY, 20, 20)
        _log.info("stream.started", port=self.port)
        self._models.thread.start()
        try:
            self._stream.loop.run()
        except CentinelaError as error:
            self.health.died(f"{type(error).__name__}: {error}")
        finally:
            self._stop.set()
            drain = Drain(SystemClock(), self._settings.drain_timeout_s / 2)
            drain.close("state", self._stream.close)
            drain.join(self._models.thread)
            drain.close("models", self._models.producer.close)
            self._ops.close()
            _log.info("process.stopped", port=self.port)
        return 0 if self.health.live else 1


def run_stream(settings: PredictorSettings, stop: threading.Event) -> int:
    """Run the stream until *stop*."""
    process = StreamProcess(settings, stop)
    return process.run() and failed(process.health.reason or "")
