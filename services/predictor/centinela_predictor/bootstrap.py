"""Builds what stream and gateway have in common: the models in service and the stores of feature state."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import Literal

from centinela.clock import Clock
from centinela.consuming.table_reader import open_table
from centinela.features.configured import layout_of
from centinela.features.known_fields import known_fields
from centinela.features.rates_file import rates_of
from centinela.features.snapshots.shared_store import SharedStorage
from centinela.features.snapshots.store import SnapshotStore
from centinela.kafka.connect import consumer, producer, topic_admin
from centinela.kafka.port import Producer
from centinela.kafka.topic_admin import TopicAdmin
from centinela.liveness.health import Health
from centinela.liveness.threads import GuardedThread
from centinela.model.backends import import_libraries
from centinela.model.bundle import verify
from centinela.model.registry import Registry
from centinela.model.scorer import Scorer
from centinela.model.signing import trusted_keys
from centinela.topics import LABELS, MODEL_EVENTS, TERMINAL_ACTIVITY, TRANSACTIONS
from centinela_predictor.models.bundle_store import BundleStore, Downloads
from centinela_predictor.models.follower import ModelFollower
from centinela_predictor.models.routing import Router
from centinela_predictor.models.scoring import ScoringCore
from centinela_predictor.models.slot import ModelSlot
from centinela_predictor.settings import PredictorSettings
from centinela_predictor.state.admission import AdmissionRules
from centinela_predictor.state.partition_store import PartitionStores

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


@dataclass(frozen=True)
class StateStores:
    """Where the state of partitions and of terminals is kept, for both roles; call ``close`` at the end."""

    settings: PredictorSettings
    partitions: PartitionStores
    admin: TopicAdmin
    shared: SharedStorage | None

    def terminals(self) -> SnapshotStore:
        """This replica's snapshots of terminal state, for the topics as they are now.

        Raises:
            DependencyUnavailable: The brokers do not answer, or a topic does not exist.
        """
        incarnations = "-".join(self.admin.identify(topic.name).id for topic in (TERMINAL_ACTIVITY, LABELS))
        name = f"terminals-{self.settings.slot}/{incarnations}"
        return SnapshotStore(
            self.settings.state_dir / name, shared=self.shared.folder(name) if self.shared is not None else None
        )

    def close(self) -> None:
        """Let uploads finish and release the connection."""
        if self.shared is not None:
            self.shared.close()
        self.admin.close()


def build_stores(settings: PredictorSettings, clock: Clock) -> StateStores:
    """The stores of this replica; nothing is connected before it is needed.

    Raises:
        CentinelaError: No driver is installed for ``snapshot_url``, or the file of rates cannot be used.
    """
    shared = SharedStorage(settings.snapshot_url) if settings.snapshot_url else None
    admin = topic_admin(settings)
    partitions = PartitionStores(
        settings.state_dir,
        lambda: admin.identify(TRANSACTIONS.name),
        lambda: consumer(settings, group=None, client="confluent"),
        clock,
        shared=shared,
        dedupe_ids=settings.dedupe_ids,
        layout=layout_of(settings),
        rules=AdmissionRules(
            known_fields(settings, refuse=settings.stream_unknown_fields == "refuse"), rates_of(settings)
        ),
    )
    return StateStores(settings, partitions, admin, shared)
