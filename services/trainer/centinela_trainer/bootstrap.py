"""Builds the adapters of each role from settings."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

from centinela.model.registry import Registry

from centinela import topics
from centinela.clock import SystemClock
from centinela.kafka import connect
from centinela.kafka.loop import ConsumerLoop, SinkLoop
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


def trainer_loop(settings: TrainerSettings, health: Health, stop: threading.Event) -> ConsumerLoop:
    """Role ``serve``: answers each retrain request once, in the transaction that commits its offset."""
    load_params(settings.params_path)
    consumer = connect.consumer(settings, group=TRAINER, instance_id=TRAINER)
    runner = ChildRunner(settings.training_dir, start_child(settings.training_threads), SystemClock(), health, settings.training_timeout_s)
    handler = RetrainHandler(runner, settings.model_name, topics.MODEL_EVENTS.name)
    return ConsumerLoop(consumer, connect.transactional_producer(settings, transactional_id=TRAINER), handler,
                        topics=[topics.RETRAIN_REQUESTS.name], health=health, stop=stop, batch=10, service=TRAINER)


def archive_loop(settings: TrainerSettings, store: ArchiveStore, health: Health, stop: threading.Event) -> SinkLoop:
    """Role ``archive``: verdicts and labels to Parquet. *store* is locked by this process."""
    streams = {topics.PREDICTIONS.name: PREDICTIONS, topics.LABELS.name: LABELS}
    archive = Archive(store, streams, SystemClock(), flush_rows=settings.archive_flush_rows, flush_s=settings.archive_flush_s)
    return SinkLoop(connect.consumer(settings, group=ARCHIVE, instance_id=ARCHIVE), connect.producer(settings), archive,
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
