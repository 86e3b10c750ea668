"""Builds the adapters of each role from settings."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

from centinela import topics
from centinela.clock import SystemClock
from centinela.kafka import connect
from centinela.kafka.loop import ConsumerLoop, SinkLoop
from centinela.model.registry import Registry
from centinela.telemetry.health import Health
from centinela_trainer.archive import LABELS, PREDICTIONS, Archive
from centinela_trainer.child import ChildRunner, start_child
from centinela_trainer.coverage import wait_for_archive
from centinela_trainer.handler import RetrainHandler
from centinela_trainer.job import TrainingJob
from centinela_trainer.params import load_params
from centinela_trainer.reader import ArchiveReader
from centinela_trainer.settings import TrainerSettings
from centinela_trainer.store import ArchiveStore
from centinela_trainer.tracking import Tracking

TRAINER, ARCHIVE = "trainer", "archive"


def trainer_loop(settings: TrainerSettings, health: Health, stop: threading.Event, *, requests: str = topics.RETRAIN_REQUESTS.name,
                 events: str = topics.MODEL_EVENTS.name, name: str = TRAINER) -> ConsumerLoop:
    """Role ``serve``: answers each retrain request once, in the transaction that commits its offset.

    Args:
        requests, events: Topics read and written.
        name: Consumer group, its one static member, and transactional id.
    """
    load_params(settings.params_path)
    runner = ChildRunner(settings.training_dir, start_child(settings), SystemClock(), health, settings.training_timeout_s)
    return ConsumerLoop(
        connect.consumer(settings, group=name, instance_id=name), connect.transactional_producer(settings, transactional_id=name),
        RetrainHandler(runner, settings.model_name, events), topics=[requests], health=health, stop=stop, batch=10, service=TRAINER)


def archive_loop(settings: TrainerSettings, store: ArchiveStore, health: Health, stop: threading.Event, *,
                 predictions: str = topics.PREDICTIONS.name, labels: str = topics.LABELS.name, name: str = ARCHIVE) -> SinkLoop:
    """Role ``archive``: verdicts and labels to Parquet.

    Args:
        store: Locked by this process.
        predictions, labels: Topics read.
        name: Consumer group and its one static member.
    """
    streams = {predictions: PREDICTIONS, labels: LABELS}
    archive = Archive(store, streams, SystemClock(), flush_rows=settings.archive_flush_rows, flush_s=settings.archive_flush_s)
    return SinkLoop(connect.consumer(settings, group=name, instance_id=name), connect.producer(settings), archive,
                    topics=list(streams), health=health, stop=stop, batch=5_000, service=ARCHIVE)


def training_job(settings: TrainerSettings, work: Path) -> TrainingJob:
    """What the child runs, with *work* for its files."""
    return TrainingJob(load_params(settings.params_path), timedelta(days=settings.label_maturity_days), ArchiveReader(settings.archive_dir),
                       Tracking(settings), Registry(settings), SystemClock(), work)


def await_archive(settings: TrainerSettings) -> None:
    """Return once the archive holds what ``predictions`` and ``labels`` hold now."""
    consumer = connect.consumer(settings, group=None)
    try:
        wait_for_archive(consumer, ArchiveStore(settings.archive_dir), [topics.PREDICTIONS.name, topics.LABELS.name], settings.archive_wait_s)
    finally:
        consumer.close()
