"""How far event time has come, read from the ends of the log."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from centinela.codec import Decoder, time_fault
from centinela.errors import DependencyUnavailable, InvalidRecord
from centinela.events import LabelReported, TransactionReceived
from centinela.kafka.port import Consumer, Record, TopicPartition
from centinela.topics import LABELS, TRANSACTIONS

_POLL_S, _PAUSE_S, _TAIL_TIMEOUT_S = 0.3, 0.2, 10.0
_TAIL = 100
_STRAY_SHARE, _STRAY_GAP = 0.1, timedelta(days=30)
"""Less than this share of the last records, this far ahead of all others: their clocks are wrong."""
_transactions, _labels = Decoder(TransactionReceived), Decoder(LabelReported)


def await_stream(consumer: Consumer, patience_s: float) -> int:
    """Wait until the stream has committed what ``transactions`` holds at the call, or commits nothing for *patience_s*.

    Args:
        consumer: Of the stream's group, which it does not join.

    Returns:
        The number of records that the stream has not committed; it holds them back, or does not run.

    Raises:
        DependencyUnavailable: Kafka is unavailable, or the topic does not exist.
    """
    partitions = _partitions(consumer, TRANSACTIONS.name)
    ends, pause = consumer.end_offsets(partitions), threading.Event()
    before, moved_at = -1, time.monotonic()
    while True:
        committed = consumer.committed(partitions)
        left = sum(max(0, ends[p] - (committed[p] or 0)) for p in partitions)
        if left != before:
            before, moved_at = left, time.monotonic()
        if left == 0 or time.monotonic() - moved_at >= patience_s:
            return left
        pause.wait(_PAUSE_S)


def event_time_reached(consumer: Consumer, now: datetime, warn: Callable[[str], object]) -> datetime | None:
    """The newest time among the last ``_TAIL`` records of each partition: a transaction's own, a label's report. None
    where there is none.

    Records that cannot be read, times ahead of *now*, and the times of a few records that are far ahead of all others
    (a request without a time, while days of another year are replayed) do not count; *warn* is told of the last.

    Raises:
        DependencyUnavailable: Kafka is unavailable, a topic does not exist, or a last record could not be read.
    """
    partitions = _partitions(consumer, TRANSACTIONS.name) | _partitions(consumer, LABELS.name)
    begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
    waiting = {p for p in partitions if ends[p] > begins[p]}
    consumer.assign(waiting)
    for partition in waiting:
        consumer.seek(partition, max(begins[partition], ends[partition] - _TAIL))
    times: list[datetime] = []
    deadline = time.monotonic() + _TAIL_TIMEOUT_S
    while waiting:
        for record in consumer.poll(_POLL_S, 1_000):
            with contextlib.suppress(InvalidRecord):
                times.append(_time(record, now))
        waiting = {p for p in waiting if consumer.position(p) < ends[p]}
        if waiting and time.monotonic() >= deadline:
            raise DependencyUnavailable(f"the last records of {sorted(waiting)} could not be read", dependency="kafka")
    newest, strays = newest_of(times)
    if strays and newest is not None:
        warn(f"{strays} of the last {len(times)} records are over {_STRAY_GAP.days} days ahead of {newest.isoformat()}")
    return newest


def newest_of(times: Sequence[datetime]) -> tuple[datetime | None, int]:
    """The newest of *times* without those of stray clocks, and how many these are."""
    latest = sorted(times, reverse=True)
    strays = 0
    for count in range(1, int(len(latest) * _STRAY_SHARE) + 1):
        if latest[count - 1] - latest[count] > _STRAY_GAP:
            strays = count
    return (latest[strays] if latest else None), strays


def _time(record: Record, now: datetime) -> datetime:
    event = (_labels if record.topic == LABELS.name else _transactions).decode(record.value)
    if (fault := time_fault(event, record.timestamp_ms, now)) is not None:
        raise fault
    return event.reported_at if isinstance(event, LabelReported) else event.occurred_at


def _partitions(consumer: Consumer, topic: str) -> frozenset[TopicPartition]:
    partitions = consumer.partitions_of(topic)
    if not partitions:
        raise DependencyUnavailable(f"topic {topic} does not exist: run `centinela topics create`", dependency="kafka")
    return partitions
