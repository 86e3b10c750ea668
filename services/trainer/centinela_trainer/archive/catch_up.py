"""Waiting until the archive has caught up with the log."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection

import structlog

from centinela.errors import DependencyUnavailable
from centinela.kafka.port import Consumer, TopicPartition
from centinela_trainer.archive.store import ArchiveStore

_log = structlog.get_logger(__name__)
_PAUSE_S, _POLL_S = 0.2, 0.3


def wait_for_archive(consumer: Consumer, store: ArchiveStore, topics: Collection[str], timeout_s: float) -> None:
    """Return once everything that *topics* held at the call is in the archive.

    A request is published after the records that it relies on, so what the topics hold now is enough.

    Args:
        consumer: Without a group; for this call alone.
        timeout_s: Longest wait.

    Raises:
        DependencyUnavailable: It took longer (is the archive running?), Kafka is unavailable, or a topic is missing.
    """
    partitions: set[TopicPartition] = set()
    for topic in topics:
        of_topic = consumer.partitions_of(topic)
        if not of_topic:
            raise DependencyUnavailable(
                f"topic {topic} does not exist: run `centinela topics create`", dependency="kafka"
            )
        partitions |= of_topic
    ends = consumer.end_offsets(partitions)
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    logged = False
    while True:
        archived = store.offsets()
        partitions = {p for p in partitions if not _is_archived(consumer, p, archived.get(p, 0), ends[p])}
        if not partitions:
            return
        behind = ", ".join(f"{p.topic}[{p.partition}] at {archived.get(p, 0)} of {ends[p]}" for p in sorted(partitions))
        if time.monotonic() >= deadline:
            raise DependencyUnavailable(
                f"the archive did not reach the end of the log within {timeout_s:g} s: {behind}", dependency="archive"
            )
        if not logged:
            logged = True
            _log.info("training.waits_for_archive", behind=behind)
        pause.wait(_PAUSE_S)


def _is_archived(consumer: Consumer, partition: TopicPartition, archived: int, end: int) -> bool:
    """Whether there is no record between *archived* and *end*; transaction markers do not count."""
    if archived >= end:
        return True
    consumer.assign([partition])
    consumer.seek(partition, archived)
    records = consumer.poll(_POLL_S, 1)
    return records[0].offset >= end if records else consumer.position(partition) >= end
