"""Builds what the two roles are made of."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import Literal

from centinela.clock import Clock
from centinela.consuming.table_reader import open_table
from centinela.features.configured import layout_of
from centinela.kafka.connect import producer
from centinela.kafka.port import Producer
from centinela.liveness.health import Health
from centinela.liveness.threads import GuardedThread
from centinela.model.backends import import_libraries
from centinela.model.bundle import verify
from centinela.model.registry import Registry
from centinela.model.scorer import Scorer
from centinela.model.signing import trusted_keys
from centinela.topics import MODEL_EVENTS
from centinela_predictor.models.bundle_store import BundleStore, Downloads
from centinela_predictor.models.follower import ModelFollower
from centinela_predictor.models.routing import Router
from centinela_predictor.models.scoring import ScoringCore
from centinela_predictor.models.slot import ModelSlot
from centinela_predictor.settings import PredictorSettings

Role = Literal["gateway", "stream"]
LIBRARIES_REST_S = 10.0
"""A model that only scikit-learn can serve, promoted sooner after the start than this and the import, waits for the
import."""


@dataclass(frozen=True)
class Models:
    """The models in service, the scoring on them, and the thread that keeps them at the newest promotion."""

    slot: ModelSlot
    core: ScoringCore
    producer: Producer
    thread: GuardedThread


def build_models(
    settings: PredictorSettings,
    role: Role,
    health: Health,
    clock: Clock,
    stop: threading.Event,
    *,
    registry: Downloads | None = None,
) -> Models:
    """Models as this replica has them: those of the disk at once, what is promoted as soon as ``thread`` runs.

    The caller starts ``thread``, and closes ``producer`` after it.
    """
    slot, trusted = ModelSlot(), trusted_keys(settings)
    own_producer = producer(settings)
    events = open_table(settings, [MODEL_EVENTS.name])
    follower = ModelFollower(
        events=events,
        store=BundleStore(settings.models_dir, partial(verify, trusted=trusted), clock),
        registry=registry or Registry(settings),
        slot=slot,
        load=partial(Scorer.load, layout=layout_of(settings), trusted=trusted),
        producer=own_producer,
        health=health,
        clock=clock,
        model_name=settings.model_name,
        replica=f"{role}-{settings.slot}",
        retry_s=settings.registry_retry_s,
    )
    follower.start_from_disk()

    libraries = GuardedThread("libraries", lambda: import_libraries(stop, LIBRARIES_REST_S), health, stop.set)

    def follow() -> None:
        libraries.start()
        try:
            follower.run(stop)
        finally:
            events.close()
            libraries.join()

    core = ScoringCore(slot, Router(settings.ab_salt, settings.ab_share))
    return Models(slot, core, own_producer, GuardedThread("models", follow, health, stop.set))
