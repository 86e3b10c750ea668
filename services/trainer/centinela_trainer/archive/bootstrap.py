"""Builds the adapters of the role ``archive`` from settings."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

from centinela import groups, topics
from centinela.clock import SystemClock
from centinela.consuming.carry_over import carry_over
from centinela.consuming.loop import SinkLoop
from centinela.consuming.options import LoopOptions
from centinela.deadletters.record import DeadLetterCap
from centinela.groups import ConsumerGroup
from centinela.kafka import connect
from centinela.kafka.port import TopicIdentity
from centinela.liveness.health import Health
from centinela_trainer.archive.catch_up import wait_for_archive
from centinela_trainer.archive.store import LABELS, PREDICTIONS, ArchiveStore
from centinela_trainer.archive.writer import Archive
from centinela_trainer.settings import TrainerSettings

ARCHIVE = "archive"


def archive_loop(
    settings: TrainerSettings,
    store: ArchiveStore,
    health: Health,
    stop: threading.Event,
    *,
    predictions: str = topics.PREDICTIONS.name,
    labels: str = topics.LABELS.name,
    group: ConsumerGroup = groups.ARCHIVE,
) -> SinkLoop:
    """Role ``archive``: verdicts and labels to Parquet.

    Args:
        store: Locked by this process.
        predictions, labels: Topics read.
        group: Consumer group, with one static member of the same name.
    """
    streams = {predictions: PREDICTIONS, labels: LABELS}
    archive = Archive(
        store,
        streams,
        SystemClock(),
        flush_rows=settings.archive_flush_rows,
        flush_s=settings.archive_flush_s,
        identify=partial(_identity, settings),
    )
    return SinkLoop(
        connect.consumer(settings, group=group.name, instance_id=group.name),
        connect.producer(settings),
        archive,
        topics=list(streams),
        health=health,
        stop=stop,
        options=LoopOptions(
            batch=5_000,
            service=ARCHIVE,
            cap=DeadLetterCap(settings.dead_letter_max_share),
            patience=settings.patience,
            carry_over=carry_over(settings, group),
        ),
    )


def _identity(settings: TrainerSettings, topic: str) -> TopicIdentity:
    """Of *topic*; each call makes a connection of its own, since calls are rare."""
    admin = connect.topic_admin(settings)
    try:
        return admin.identify(topic)
    finally:
        admin.close()


def await_archive(
    settings: TrainerSettings, names: Sequence[str] = (topics.PREDICTIONS.name, topics.LABELS.name)
) -> None:
    """Return once the archive holds what the topics *names* hold now."""
    consumer = connect.consumer(settings, group=None)
    try:
        wait_for_archive(consumer, ArchiveStore(settings.archive_dir), names, settings.archive_wait_s)
    finally:
        consumer.close()
