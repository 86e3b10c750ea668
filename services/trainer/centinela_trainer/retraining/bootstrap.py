"""Builds the adapters of the role ``serve`` and of its training child from settings.

What only the training child needs (scikit-learn, MLflow: 5 s and 300 MB) is imported where it is built, while the
child waits for the archive.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from centinela import groups, topics
from centinela.clock import SystemClock
from centinela.consuming.carry_over import carry_over
from centinela.consuming.loop import ConsumerLoop
from centinela.consuming.options import LoopOptions
from centinela.deadletters.record import DeadLetterCap
from centinela.groups import ConsumerGroup
from centinela.kafka import connect
from centinela.liveness.health import Health
from centinela_trainer.params import load_params
from centinela_trainer.retraining.child_runner import ChildRunner, start_child
from centinela_trainer.retraining.handler import RetrainHandler
from centinela_trainer.settings import TrainerSettings
from centinela_trainer.snapshots.push import SnapshotPusher, SnapshotRemote
from centinela_trainer.snapshots.store import SnapshotStore

if TYPE_CHECKING:
    from centinela.model.registry import Registry
    from centinela_trainer.retraining.job import TrainingJob

TRAINER = "trainer"


def trainer_loop(
    settings: TrainerSettings,
    health: Health,
    stop: threading.Event,
    *,
    requests: str = topics.RETRAIN_REQUESTS.name,
    events: str = topics.MODEL_EVENTS.name,
    group: ConsumerGroup = groups.TRAINER,
    transactional_id: str = TRAINER,
    answered: Callable[[], None] | None = None,
) -> ConsumerLoop:
    """Role ``serve``: answers each retrain request once, in the transaction that commits its offset.

    Args:
        requests, events: Topics read and written.
        group: Consumer group, with one static member of the same name.
        answered: Called after each answer is committed.
    """
    load_params(settings.params_path)
    _ = settings.signing_key  # an unusable key is an error now, not after a training
    runner = ChildRunner(
        settings.training_dir, start_child(settings), SystemClock(), health, settings.training_timeout_s
    )
    return ConsumerLoop(
        connect.consumer(settings, group=group.name, instance_id=group.name),
        connect.transactional_producer(settings, transactional_id=transactional_id),
        RetrainHandler(runner, settings.model_name, events, answered),
        topics=[requests],
        health=health,
        stop=stop,
        options=LoopOptions(
            batch=10,
            service=TRAINER,
            cap=DeadLetterCap(settings.dead_letter_max_share),
            patience=settings.patience,
            carry_over=carry_over(settings, group),
        ),
    )


def snapshot_pusher(settings: TrainerSettings) -> SnapshotPusher | None:
    """Carries snapshots to the remote that settings name, if they name one."""
    if settings.snapshot_remote is None:
        return None
    return SnapshotPusher(
        SnapshotStore(settings.snapshots_dir), SnapshotRemote(settings.snapshot_remote), SystemClock()
    )


def training_job(settings: TrainerSettings, work: Path, *, registry: Registry | None = None) -> TrainingJob:
    """What the child runs, with the empty folder *work* for its files."""
    from centinela.model.registry import Registry
    from centinela_trainer.archive.reader import ArchiveReader
    from centinela_trainer.mlflow_tracking import Tracking
    from centinela_trainer.retraining.job import TrainingJob
    from centinela_trainer.skew.check import SkewCheck

    params = load_params(settings.params_path)
    return TrainingJob(
        params,
        timedelta(days=settings.label_maturity_days),
        ArchiveReader(settings.archive_dir),
        SnapshotStore(settings.snapshots_dir),
        SkewCheck(settings.archive_dir, params.skew, settings.skew_path),
        Tracking(settings),
        registry or Registry(settings),
        SystemClock(),
        work,
        settings.signing_key,
    )
