"""Partition states from the whole log, for a topic that was given more partitions: its users moved to other
partitions, their history did not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

import numpy as np
import structlog

from centinela.features.layout import FeatureLayout
from centinela.kafka.partitioner import partition_of
from centinela.kafka.port import Consumer, Record, TopicPartition
from centinela.liveness.progress import report_progress
from centinela_predictor.state.admission import SCHEMA_ONLY, AdmissionRules, Admitted, admit, by_partition
from centinela_predictor.state.partition_state import PartitionState

_BATCH = 5_000
_log = structlog.get_logger(__name__)
_owner = lru_cache(1 << 17)(partition_of)


def repartition(
    reader: Consumer,
    topic: str,
    until: Mapping[int, int],
    now: datetime,
    layout: FeatureLayout,
    dedupe_ids: int,
    rules: AdmissionRules = SCHEMA_ONLY,
) -> list[PartitionState]:
    """The state of every partition of *topic* at its offset in *until*, with what its users did in other partitions.

    The state of a partition takes all of its own records before that offset, and every record of another partition, up
    to its end, whose key belongs to it now. A record that still arrives in a user's former partition after this is
    misrouted: see ``MisroutedCheck``.

    Args:
        reader: A consumer without a group, for this call alone.
        until: One offset for each of the topic's partitions.
        rules: As for ``admit``.

    Raises:
        DependencyUnavailable: The brokers are unavailable.
    """
    partitions = [TopicPartition(topic, number) for number in range(len(until))]
    first, end = reader.beginning_offsets(partitions), reader.end_offsets(partitions)
    states = [PartitionState(dedupe_ids, layout, rules.rates.base) for _ in partitions]
    for partition in partitions:
        states[partition.partition].repartitioned_at = end[partition]
        if first[partition] > 0:
            _log.warning(
                "repartition.log_truncated", topic=topic, partition=partition.partition, first=first[partition]
            )
    reader.assign(partitions)
    reading = {partition for partition in partitions if first[partition] < end[partition]}
    while reading:
        report_progress()
        records = [
            record
            for record in reader.poll(0.2, _BATCH)
            if record.offset < end[TopicPartition(topic, record.partition)]
        ]
        for number, part in by_partition(records).items():
            _take(states, number, admit(part, now, layout, rules), until[number])
        reading = {partition for partition in reading if reader.position(partition) < end[partition]}
    return states


def _take(states: list[PartitionState], number: int, admitted: Admitted, until: int) -> None:
    owners = np.array([_owner_of(record, len(states)) for record in admitted.records], dtype=np.intp)
    offsets = np.array([record.offset for record in admitted.records], dtype=np.int64)
    states[number].apply(admitted.columns.take(np.flatnonzero(offsets < until)))
    for owner in np.unique(owners[owners != number]).tolist():
        states[owner].inherit(admitted.columns.take(np.flatnonzero(owners == owner)))


def _owner_of(record: Record, partitions: int) -> int:
    return record.partition if record.key is None else _owner(record.key, partitions)
