"""The partitions that a loop owns: taking them over, reading them again from the right offset, deferring them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from centinela.clock import Clock
from centinela.consuming.handler import StatefulHandler
from centinela.kafka.port import Consumer, Rebalance, Record, TopicPartition
from centinela.liveness.progress import PartitionProgress
from centinela.telemetry.metrics import CONSUMER_OFFSETS_EXPIRED, CONSUMER_OFFSETS_MISSING

_log = structlog.get_logger(__name__)


@dataclass
class _Owned:
    """A partition of this loop. Records below *replay_until* were committed before; *origin* is where reading began."""

    next_offset: int | None
    origin: int | None
    replay_until: int = 0
    deferred_until: float | None = None
    deferrals: int = 0


class _Kept(NamedTuple):
    """The first and the end offset of a partition's log."""

    first: int
    end: int


class Partitions:
    """Keeps the handler's state and the consumer's positions in step.

    Args:
        defer_s: How long a deferred partition rests before it is delivered again.
    """

    def __init__(self, consumer: Consumer, handler: StatefulHandler, clock: Clock, defer_s: float) -> None:
        self._consumer = consumer
        self._handler = handler
        self._clock = clock
        self._defer_s = defer_s
        self._owned: dict[TopicPartition, _Owned] = {}
        self._pending: dict[TopicPartition, int | None] = {}
        self._delivering = True

    @property
    def owned(self) -> frozenset[TopicPartition]:
        """The partitions taken over."""
        return frozenset(self._owned)

    def progress(self) -> dict[TopicPartition, PartitionProgress]:
        """The progress of each partition. What follows the last record (transaction markers) is not lag."""
        result = {}
        for partition, end in self._consumer.end_offsets(list(self._owned)).items():
            owned = self._owned[partition]
            progress = PartitionProgress(owned.next_offset or 0, end, owned.deferrals)
            if progress.lag and owned.deferred_until is None:
                progress = progress._replace(offset=max(progress.offset, self._consumer.position(partition)))
            result[partition] = progress
        return result

    def apply(self, change: Rebalance) -> None:
        """Drop what was revoked or lost; what was assigned is taken over by the next ``adopt``."""
        for partition in sorted(change.revoked | change.lost):
            self._pending.pop(partition, None)
            if self._owned.pop(partition, None) is not None:
                lost = partition in change.lost
                if not lost:
                    self._handler.on_revoked(partition)
                self._handler.on_dropped(partition)
                _log.info("partition.dropped", topic=partition.topic, partition=partition.partition, lost=lost)
        self._pending.update(dict.fromkeys(change.assigned))

    def adopt(self) -> None:
        """Take over what was assigned: ask the group's offset, let the handler restore, read from where it says."""
        if not self._pending:
            return
        committed = self._consumer.committed(list(self._pending))
        first = self._consumer.beginning_offsets(list(self._pending))
        end = self._consumer.end_offsets(list(self._pending))
        for partition in sorted(self._pending):
            kept = _Kept(first[partition], end[partition])
            offset = self._usable(partition, committed[partition], kept)
            unusable = offset is None and committed[partition] is not None
            origin = kept.first if unusable else self._pending[partition]
            self._owned[partition] = self._adopt(partition, offset, origin, kept)
            del self._pending[partition]
            if not self._delivering:
                self._consumer.hold({partition: None})

    def rebuild(self) -> None:
        """Drop all state and take every partition over again, from what was committed."""
        for partition, owned in self._owned.items():
            self._handler.on_dropped(partition)
            self._pending[partition] = owned.origin
            if owned.deferred_until is not None:
                self._consumer.release([partition])
        self._owned = {}

    def release(self) -> None:
        """The loop ends in good order: the handler may snapshot, then forget."""
        for partition in sorted(self._owned):
            self._handler.on_revoked(partition)
            self._handler.on_dropped(partition)
        self._owned = {}

    def deliver(self, delivering: bool) -> None:
        """Stop or resume reading."""
        if delivering == self._delivering:
            return
        self._delivering = delivering
        if delivering:
            self._consumer.release([p for p, owned in self._owned.items() if owned.deferred_until is None])
        else:
            self._consumer.hold(dict.fromkeys(self._owned))

    def resume_deferred(self) -> None:
        """Read deferred partitions again whose rest is over."""
        now = self._clock.monotonic()
        for partition, owned in self._owned.items():
            if owned.deferred_until is not None and owned.deferred_until <= now:
                owned.deferred_until = None
                if self._delivering:
                    self._consumer.release([partition])

    def defer(self, deferred: Mapping[TopicPartition, int]) -> None:
        """Read each partition again from its offset, after a rest."""
        if not deferred:
            return
        until = self._clock.monotonic() + self._defer_s
        for partition, offset in deferred.items():
            owned = self._owned[partition]
            owned.next_offset = offset
            owned.deferred_until = until
            owned.deferrals += 1
        self._consumer.hold(deferred)

    def split(self, records: Sequence[Record]) -> tuple[Sequence[Record], Sequence[Record]]:
        """(records committed before, records to process). Notes where reading began, so that an abort can return
        there."""
        if any(owned.origin is None for owned in self._owned.values()):
            for record in records:
                owned = self._owned[TopicPartition(record.topic, record.partition)]
                owned.origin = record.offset if owned.origin is None else owned.origin
        until = {tuple(p): owned.replay_until for p, owned in self._owned.items() if owned.replay_until}
        if not until:
            return (), records
        old = [r for r in records if r.offset < until.get((r.topic, r.partition), 0)]
        return old, ([r for r in records if r.offset >= until.get((r.topic, r.partition), 0)] if old else records)

    def delivered(self, records: Sequence[Record]) -> dict[TopicPartition, int]:
        """Note that *records* were delivered; the next offset of each of their partitions."""
        ends = {(r.topic, r.partition): r.offset + 1 for r in records}
        for (topic, number), end in ends.items():
            owned = self._owned[TopicPartition(topic, number)]
            owned.next_offset = end
            if owned.replay_until and end > owned.replay_until:
                owned.replay_until = 0
        return {TopicPartition(*p): end for p, end in ends.items()}

    def _usable(self, partition: TopicPartition, committed: int | None, kept: _Kept) -> int | None:
        """*committed*, or what the handler knows where the group has lost it, or it belongs to another log."""
        if committed is not None and committed <= kept.end:
            if committed < kept.first:
                CONSUMER_OFFSETS_EXPIRED.labels(partition.topic).inc(kept.first - committed)
                _log.error(
                    "partition.records_expired",
                    topic=partition.topic,
                    partition=partition.partition,
                    committed=committed,
                    first=kept.first,
                )
            return max(committed, kept.first)
        known = self._handler.position_known(partition)
        if committed is None and known is None:
            return None
        CONSUMER_OFFSETS_MISSING.labels(partition.topic).inc()
        _log.error(
            "group.offset_missing",
            topic=partition.topic,
            partition=partition.partition,
            committed=committed,
            first=kept.first,
            end=kept.end,
            known=known,
        )
        return None if known is None else min(max(known, kept.first), kept.end)

    def _adopt(self, partition: TopicPartition, committed: int | None, origin: int | None, kept: _Kept) -> _Owned:
        restored = self._handler.on_assigned(partition, committed)
        if restored is not None and committed is not None and restored > committed:
            raise ValueError(
                f"{partition}: the handler restored {restored}, but the group has committed only {committed}"
            )
        start = origin if committed is None else committed
        start = start if restored is None else restored
        replay_until = committed if committed is not None and start is not None and start < committed else 0
        if replay_until and start is not None and kept.first > start:
            _log.warning(
                "replay.cut_short", topic=partition.topic, partition=partition.partition, start=start, first=kept.first
            )
            start = kept.first
        if start is not None:
            self._consumer.seek(partition, start)
        _log.info(
            "partition.assigned", topic=partition.topic, partition=partition.partition, committed=committed, start=start
        )
        return _Owned(start, start, replay_until or 0)
