"""Watches the registry's aliases and announces changes on ``model-events``."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from centinela.clock import Clock
from centinela.consuming.model_events import Promotions
from centinela.consuming.outage import Outage
from centinela.errors import CentinelaError, DependencyUnavailable
from centinela.events import ModelPromoted, encode
from centinela.kafka.headers import event_headers, event_source
from centinela.kafka.port import Outgoing, Producer, Record
from centinela.liveness.health import Health
from centinela.liveness.progress import PATIENCE, Patience, Progress
from centinela.liveness.retry import Backoff
from centinela.liveness.watchdog import Watchdog
from centinela.telemetry.tracing import new_traceparent
from centinela.topics import MODEL_EVENTS
from centinela_registry_watcher import metrics
from centinela_registry_watcher.diff import Announced, diff, key_of, with_event

_log = structlog.get_logger(__name__)
READ_TIMEOUT_S = 30.0
DELIVERY_TIMEOUT_S = 10.0
LEAST_GAP_S, STOP_CHECK_S = 0.05, 0.2
KAFKA, MLFLOW = "kafka", "mlflow"


class Aliases(Protocol):
    """What the watcher needs of the registry."""

    def aliases(self) -> Mapping[str, str]:
        """Alias to version. Raises ``DependencyUnavailable``."""

    def restage(self) -> None:
        """Bring the versions' stage tags in line with the aliases."""


class Table(Protocol):
    """``model-events``, read from its beginning: a ``TableReader``."""

    def read_to_end(self, timeout_s: float) -> Sequence[Record]:
        """What was added since the last call. Raises ``DependencyUnavailable``."""


class Watcher:
    """Announces each change of the aliases once.

    It reads its whole state back from the topic, its own events included: a restart announces nothing twice. A second
    watcher does no harm: each reads the other's events before it compares, so usually only one of them writes. If both
    write at once, they write equal events of equal sequence, which readers take once; where the registry moved in
    between and the events differ, each sees the dispute on its next look and announces the state again under a higher
    sequence.

    Args:
        table: The topic, for this watcher alone.
        health: Waits for ``kafka`` and ``mlflow``.
        stop: Ends ``run``.
        topic: Where events go.
        patience: How long a look may take.
    """

    def __init__(
        self,
        registry: Aliases,
        table: Table,
        producer: Producer,
        *,
        model_name: str,
        poll_s: float,
        health: Health,
        clock: Clock,
        stop: threading.Event,
        topic: str = MODEL_EVENTS.name,
        patience: Patience = PATIENCE,
    ) -> None:
        self._registry = registry
        self._table = table
        self._producer = producer
        self._model_name = model_name
        self._poll_s = poll_s
        self._clock = clock
        self._stop = stop
        self._topic = topic
        self._health = health
        self._announced: Announced = {}
        self._promotions = Promotions(model_name)
        self._outage = Outage(health, stop, clock=clock)
        self._wake = threading.Event()
        self._staged: Mapping[str, str] | None = None
        self._restage_backoff = Backoff(first_s=1.0, max_s=60.0)
        self._restage_not_before = float("-inf")
        self._patience = patience
        self._progress = Progress(patience.stuck_s, clock.monotonic())
        for dependency in (KAFKA, MLFLOW):
            health.wait_for(dependency, "not asked yet")

    def hint(self) -> None:
        """Look now rather than at the next interval. From any thread."""
        self._wake.set()

    def run(self) -> None:
        """Look every ``poll_s`` seconds, and on every hint, until stopped. Waits while a dependency is unavailable."""
        with Watchdog("registry-watcher", self._progress, self._health, self._patience, clock=self._clock):
            while not self._stop.is_set():
                try:
                    self.step()
                except DependencyUnavailable as error:
                    self._outage.failed(error)
                    self._outage.back_off()
                else:
                    self._pause()

    def step(self) -> list[ModelPromoted]:
        """Read what was announced, look once, announce what differs; the events written.

        Raises:
            DependencyUnavailable: Kafka or MLflow does not answer; nothing is lost, the next step catches up.
        """
        self._progress.beat(self._clock.monotonic())
        self._take(self._table.read_to_end(READ_TIMEOUT_S))
        self._outage.answered(KAFKA)
        with metrics.POLL_DURATION.time():
            aliases = self._registry.aliases()
        self._outage.answered(MLFLOW)
        events = diff(self._announced, aliases, model_name=self._model_name, at=self._clock.now())
        for event in events:
            self._announce(event)
        self._restage(aliases)
        return events

    def _restage(self, aliases: Mapping[str, str]) -> None:
        """After an alias moved: who sets one in MLflow itself does not set the tags. They decide nothing, so a failure
        is logged and tried again later."""
        if aliases == self._staged or self._clock.monotonic() < self._restage_not_before:
            return
        try:
            self._registry.restage()
        except CentinelaError as error:
            pause_s = self._restage_backoff.next_s()
            self._restage_not_before = self._clock.monotonic() + pause_s
            metrics.STAGE_FAILURES.inc()
            _log.warning("stages.not_written", detail=str(error), retry_s=round(pause_s, 3))
        else:
            self._staged = dict(aliases)
            self._restage_backoff.reset()

    def _pause(self) -> None:
        """Wait for the next interval, a hint or the stop, whichever comes first; never less than ``LEAST_GAP_S``,
        however many hints come."""
        remaining = self._poll_s
        self._stop.wait(LEAST_GAP_S)
        while remaining > 0 and not self._stop.is_set() and not self._wake.wait(min(remaining, STOP_CHECK_S)):
            remaining -= STOP_CHECK_S
            self._progress.beat(self._clock.monotonic())
        self._wake.clear()

    def _take(self, records: Sequence[Record]) -> None:
        for event in self._promotions.among(records):
            self._announced = with_event(self._announced, event)
        metrics.SEQUENCE.set(max((known.sequence for known in self._announced.values()), default=0))

    def _announce(self, event: ModelPromoted) -> None:
        headers = event_headers(
            event_type="ModelPromoted",
            event_id=f"{event.model_name}:{event.sequence}",
            source=event_source("registry-watcher"),
            time=event.observed_at,
            traceparent=new_traceparent(),
        )
        self._producer.send(Outgoing(self._topic, encode(event), key_of(event), headers)).wait(DELIVERY_TIMEOUT_S)
        metrics.ANNOUNCED.labels(event.alias).inc()
        _log.info(
            "model.promoted",
            alias=event.alias,
            model_version=event.model_version,
            previous_version=event.previous_version,
            sequence=event.sequence,
        )
