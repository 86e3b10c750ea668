"""Follows ``model-events`` and puts promoted models in service: fetch, verify, load, warm, check, swap, report."""

from __future__ import annotations

import gc
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from centinela.clock import Clock
from centinela.consuming.model_events import Promotions
from centinela.errors import DependencyUnavailable, ModelRejected
from centinela.events import ModelLoaded, ModelLoadRejected, ModelPromoted, encode, type_name
from centinela.kafka.headers import event_headers, event_source
from centinela.kafka.port import Outgoing, Producer, Record
from centinela.liveness.health import Health
from centinela.liveness.retry import Backoff
from centinela.topics import MODEL_EVENTS
from centinela_predictor.models import metrics
from centinela_predictor.models.bundle_store import BundleStore, Downloads
from centinela_predictor.models.explanations import explainer_of
from centinela_predictor.models.slot import Alias, ModelSlot, Scores, ServedModel

_log = structlog.get_logger(__name__)
CONDITION = "model"
ALIASES: tuple[Alias, Alias] = ("champion", "challenger")
LONGEST_PAUSE_S = 30.0
LONGEST_PAUSE_SERVING_S = 600.0
"""Longest pause between attempts at a refused bundle while another model serves: an attempt loads the whole model."""
REPORT_TIMEOUT_S = 5.0


class ModelEvents(Protocol):
    """Reads ``model-events`` from its beginning, then follows: a ``TableReader``, or a fake."""

    def poll(self, timeout_s: float) -> Sequence[Record]:
        """The next records, none after *timeout_s* without any. Raises ``DependencyUnavailable``."""

    def at_end(self) -> bool:
        """Whether everything that the topic held at the start was read."""


@dataclass
class _Refusal:
    """A promotion whose bundle was refused, and when it is tried again."""

    sequence: int
    backoff: Backoff
    reason: str = ""
    not_before: float = 0.0


class ModelFollower:
    """Keeps *slot* at the newest promotion of each alias.

    A bundle that is refused leaves the old model in service. It is tried again with growing pauses until a newer
    promotion: what the registry holds may be complete a moment later, and a model that could not be loaded for lack of
    memory may load. While the registry or Kafka is unavailable the models in service stay, and the promotion is tried
    again. A rollback is a promotion of an older version.

    Args:
        load: Opens a bundle: verifies, loads, warms, checks the golden set. Raises ``ModelRejected``.
        replica: Names this process in ``ModelLoaded`` and ``ModelLoadRejected``.
        retry_s: Upper bound of the first pause after a dependency failed or a bundle was refused; it doubles up to
            ``LONGEST_PAUSE_S`` (for a refused bundle, while a champion serves, ``LONGEST_PAUSE_SERVING_S``).
    """

    def __init__(
        self,
        *,
        events: ModelEvents,
        store: BundleStore,
        registry: Downloads,
        load: Callable[[Path], Scores],
        slot: ModelSlot,
        producer: Producer,
        health: Health,
        clock: Clock,
        model_name: str,
        replica: str,
        retry_s: float,
    ) -> None:
        self._events = events
        self._store = store
        self._registry = registry
        self._load = load
        self._slot = slot
        self._producer = producer
        self._health = health
        self._clock = clock
        self._model_name = model_name
        self._replica = replica
        self._retry_s = retry_s
        self._promotions = Promotions(model_name)
        self._promoted: dict[Alias, ModelPromoted] = {}
        self._done: dict[Alias, int] = {}
        self._refused: dict[Alias, _Refusal] = {}
        self._reports: deque[Outgoing] = deque()
        self._backoff = Backoff(first_s=retry_s, max_s=max(retry_s, LONGEST_PAUSE_S))
        self._not_before = 0.0

    def start_from_disk(self) -> None:
        """Serve the bundles that the links name, without Kafka or the registry; a damaged bundle is left for the
        registry to replace."""
        for alias in ALIASES:
            version = self._store.linked(alias)
            if version is None:
                continue
            try:
                self._serve(alias, version, self._store.path(version))
            except ModelRejected as error:
                _log.warning("model.local_refused", alias=alias, model_version=version, reason=str(error))
                metrics.MODELS_REJECTED.labels(alias).inc()
            else:
                _log.info("model.started_from_disk", alias=alias, model_version=version)
        if not self._slot.loaded:
            self._health.wait_for(CONDITION, "no champion is promoted yet, and none is kept on this disk")

    def run(self, stop: threading.Event) -> None:
        """Follow until *stop*."""
        while not stop.is_set():
            self.step(0.2, stop)

    def step(self, timeout_s: float, stop: threading.Event) -> None:
        """Read new events, then work on the promotions that are not done."""
        try:
            self._take(self._events.poll(timeout_s))
            caught_up = self._events.at_end()
        except DependencyUnavailable as error:
            if not self._slot.loaded:
                self._health.wait_for(CONDITION, f"model-events cannot be read: {error}")
            stop.wait(self._retry_s)
            return
        if not caught_up or self._clock.monotonic() < self._not_before:
            return
        try:
            for alias in ALIASES:
                promoted = self._promoted.get(alias)
                if promoted and self._is_due(promoted):
                    self._follow(promoted)
            self._send_reports()
        except DependencyUnavailable as error:
            pause_s = self._backoff.next_s()
            self._not_before = self._clock.monotonic() + pause_s
            _log.warning("model.waits", detail=str(error), retry_s=round(pause_s, 3), serving=self._serving("champion"))
            if not self._slot.loaded:
                self._health.wait_for(CONDITION, str(error))
        else:
            self._backoff.reset()

    def _take(self, records: Sequence[Record]) -> None:
        for event in self._promotions.among(records):
            newest = self._promoted.get(event.alias)
            if newest is None or event.sequence > newest.sequence:
                self._promoted[event.alias] = event
                self._not_before = 0.0
                self._backoff.reset()

    def _is_due(self, promoted: ModelPromoted) -> bool:
        if promoted.sequence <= self._done.get(promoted.alias, -1):
            return False
        refusal = self._refused.get(promoted.alias)
        return refusal is None or refusal.sequence != promoted.sequence or self._clock.monotonic() >= refusal.not_before

    def _follow(self, promoted: ModelPromoted) -> None:
        alias, version = promoted.alias, promoted.model_version
        if version is None:
            self._withdraw(alias)
            self._conclude(promoted)
            return
        started = self._clock.monotonic()
        try:
            if self._serving(alias) != version:
                self._serve(alias, version, self._store.fetch(version, self._registry))
            self._store.link(alias, version)
        except ModelRejected as error:
            self._reject(promoted, version, str(error))
            return
        self._conclude(promoted)
        duration = self._clock.monotonic() - started
        _log.info(
            "model.loaded",
            alias=alias,
            model_version=version,
            sequence=promoted.sequence,
            duration_s=round(duration, 3),
        )
        self._queue(
            f"loaded:{alias}:{self._replica}",
            ModelLoaded(
                model_name=self._model_name,
                alias=alias,
                model_version=version,
                replica=self._replica,
                sequence=promoted.sequence,
                loaded_at=self._clock.now(),
                duration_s=duration,
            ),
        )

    def _serve(self, alias: Alias, version: str, folder: Path) -> None:
        try:
            scorer = self._load(folder)
        except OSError as error:
            raise ModelRejected(f"unreadable: {error}") from error
        first = not self._slot.loaded
        before = self._slot.swap(alias, ServedModel(version, scorer, explainer_of(scorer.manifest)))
        metrics.show_model(alias, before.version if before else None, version)
        if self._slot.loaded:
            self._health.met(CONDITION)
        if first:
            gc.collect()
            gc.freeze()

    def _withdraw(self, alias: Alias) -> None:
        if alias == "champion":
            _log.warning("model.champion_withdrawn", serving=self._serving(alias))
            return
        before = self._slot.swap(alias, None)
        self._store.link(alias, None)
        metrics.show_model(alias, before.version if before else None, None)
        _log.info("model.withdrawn", alias=alias, model_version=before.version if before else None)

    def _conclude(self, promoted: ModelPromoted) -> None:
        self._done[promoted.alias] = promoted.sequence
        self._refused.pop(promoted.alias, None)

    def _reject(self, promoted: ModelPromoted, version: str, reason: str) -> None:
        """Keep the old model and set the next attempt. A promotion that is refused again for the same reason is not
        reported again."""
        refusal = self._refused.get(promoted.alias)
        if refusal is None or refusal.sequence != promoted.sequence:
            refusal = _Refusal(promoted.sequence, Backoff(first_s=self._retry_s, max_s=LONGEST_PAUSE_SERVING_S))
            self._refused[promoted.alias] = refusal
        pause_s = refusal.backoff.next_s()
        if not self._slot.loaded:
            pause_s = min(pause_s, LONGEST_PAUSE_S)
            self._health.wait_for(CONDITION, f"version {version} was refused, and is tried again: {reason}")
        refusal.not_before = self._clock.monotonic() + pause_s
        if reason != refusal.reason:
            refusal.reason = reason
            self._report_rejection(promoted, version, reason, pause_s)

    def _report_rejection(self, promoted: ModelPromoted, version: str, reason: str, pause_s: float) -> None:
        alias = promoted.alias
        serving = self._serving(alias)
        metrics.MODELS_REJECTED.labels(alias).inc()
        _log.error(
            "model.rejected",
            alias=alias,
            model_version=version,
            reason=reason,
            serving=serving,
            retry_s=round(pause_s, 3),
        )
        self._queue(
            f"rejected:{alias}:{self._replica}",
            ModelLoadRejected(
                model_name=self._model_name,
                alias=alias,
                model_version=version,
                replica=self._replica,
                sequence=promoted.sequence,
                reason=reason,
                rejected_at=self._clock.now(),
                serving_version=serving,
            ),
        )

    def _serving(self, alias: Alias) -> str | None:
        model = getattr(self._slot.pair, alias)
        return model.version if model else None

    def _queue(self, kind: str, event: ModelLoaded | ModelLoadRejected) -> None:
        key = f"{self._model_name}:{kind}"
        headers = event_headers(
            event_type=type_name(type(event)),
            event_id=f"{key}:{event.sequence}",
            source=event_source("predictor", self._replica),
            time=self._clock.now(),
        )
        self._reports.append(Outgoing(MODEL_EVENTS.name, encode(event), key.encode(), headers))

    def _send_reports(self) -> None:
        while self._reports:
            self._producer.send(self._reports[0]).wait(REPORT_TIMEOUT_S)
            self._reports.popleft()
