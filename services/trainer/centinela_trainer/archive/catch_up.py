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
    next_record: dict[TopicPartition, int] = {}
    pause = threading.Event()
    logged = False
    while True:
        archived = store.offsets()
        for partition in sorted(partitions):
            start = archived.get(partition, 0)
            if start > next_record.get(partition, -1):
                next_record[partition] = _next_record(consumer, partition, start, ends[partition], deadline)
        partitions = {p for p in partitions if next_record[p] < ends[p]}
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


def _next_record(consumer: Consumer, partition: TopicPartition, start: int, end: int, deadline: float) -> int:
    """The offset of the first record from *start* on, or *end* where there is none before it.

    Behind the last record there may be transaction markers, which no poll returns and no archive holds: only the
    position tells that they were passed. The partition stays assigned until the answer is there: assigning it again
    throws away what is being fetched, and on a slow machine no fetch would ever arrive.
    """
    if start >= end:
        return end
    consumer.assign([partition])
    consumer.seek(partition, start)
    while True:
        records = consumer.poll(_POLL_S, 1)
        if records:
            return min(records[0].offset, end)
        if consumer.position(partition) >= end:
            return end
        if time.monotonic() >= deadline:
            return start
