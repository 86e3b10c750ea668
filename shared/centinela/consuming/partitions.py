"""The partitions that a loop owns: taking them over, reading them again from the right place, holding them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from centinela.clock import Clock
from centinela.consuming.handler import StatefulHandler
from centinela.kafka.port import Consumer, Rebalance, Record, TopicPartition
from centinela.liveness.progress import Standing

_log = structlog.get_logger(__name__)


@dataclass
class _Place:
    """Where a partition stands. Records below *replay_until* were committed before; *origin* is where reading began."""

    next_offset: int | None
    origin: int | None
    replay_until: int = 0
    held_until: float | None = None
    holds: int = 0


class Partitions:
    """Keeps the handler's state and the consumer's positions in step.

    Args:
        hold_s: How long a held partition rests before its tail is delivered again.
    """

    def __init__(self, consumer: Consumer, handler: StatefulHandler, clock: Clock, hold_s: float) -> None:
        self._consumer, self._handler, self._clock, self._hold_s = consumer, handler, clock, hold_s
        self._places: dict[TopicPartition, _Place] = {}
        self._pending: dict[TopicPartition, int | None] = {}
        self._delivering = True

    @property
    def owned(self) -> frozenset[TopicPartition]:
        """The partitions taken over."""
        return frozenset(self._places)

    def standings(self) -> dict[TopicPartition, Standing]:
        """Where each partition stands. What follows the last record (transaction markers) is no lag."""
        found = {}
        for partition, end in self._consumer.end_offsets(list(self._places)).items():
            place = self._places[partition]
            standing = Standing(place.next_offset or 0, end, place.holds)
            if standing.lag and place.held_until is None:
                standing = standing._replace(offset=max(standing.offset, self._consumer.position(partition)))
            found[partition] = standing
        return found

    def apply(self, change: Rebalance) -> None:
        """Drop what went away; what came is taken over by the next ``adopt``."""
        for partition in sorted(change.revoked | change.lost):
            self._pending.pop(partition, None)
            if self._places.pop(partition, None) is not None:
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
        for partition in sorted(self._pending):
            self._places[partition] = self._adopt(partition, committed[partition], self._pending[partition])
            del self._pending[partition]
            if not self._delivering and self._consumer.supports_pause:
                self._consumer.pause([partition])

    def rebuild(self) -> None:
        """Drop all state and take every partition over again, from what was committed."""
        for partition, place in self._places.items():
            self._handler.on_dropped(partition)
            self._pending[partition] = place.origin
            if place.held_until is not None and self._consumer.supports_pause:
                self._consumer.resume([partition])
        self._places = {}

    def release(self) -> None:
        """The loop ends in good order: the handler may snapshot, then forget."""
        for partition in sorted(self._places):
            self._handler.on_revoked(partition)
            self._handler.on_dropped(partition)
        self._places = {}

    def deliver(self, wanted: bool) -> None:
        """Stop or resume reading, where the consumer can pause."""
        if wanted == self._delivering:
            return
        self._delivering = wanted
        if self._consumer.supports_pause:
            if wanted:
                self._consumer.resume([p for p, place in self._places.items() if place.held_until is None])
            else:
                self._consumer.pause(list(self._places))

    def resume_held(self) -> None:
        """Read held partitions again whose rest is over."""
        now = self._clock.monotonic()
        for partition, place in self._places.items():
            if place.held_until is not None and place.held_until <= now:
                place.held_until = None
                if self._consumer.supports_pause and self._delivering:
                    self._consumer.resume([partition])

    def put_back(self, records: Sequence[Record]) -> None:
        """Deliver *records* again later."""
        first: dict[TopicPartition, int] = {}
        for record in records:
            first.setdefault(TopicPartition(record.topic, record.partition), record.offset)
        for partition, offset in first.items():
            self._consumer.seek(partition, offset)

    def hold(self, held: Mapping[TopicPartition, int]) -> None:
        """Read each partition again from its offset, after a rest."""
        for partition, offset in held.items():
            self._consumer.seek(partition, offset)
            place = self._places[partition]
            place.next_offset, place.held_until, place.holds = (
                offset,
                self._clock.monotonic() + self._hold_s,
                place.holds + 1,
            )
            if self._consumer.supports_pause:
                self._consumer.pause([partition])

    def split(self, records: Sequence[Record]) -> tuple[Sequence[Record], Sequence[Record]]:
        """(records committed before, records to process). Notes where reading began, so that an abort can return
        there."""
        if any(place.origin is None for place in self._places.values()):
            for record in records:
                place = self._places[TopicPartition(record.topic, record.partition)]
                place.origin = record.offset if place.origin is None else place.origin
        until = {tuple(p): place.replay_until for p, place in self._places.items() if place.replay_until}
        if not until:
            return (), records
        old = [r for r in records if r.offset < until.get((r.topic, r.partition), 0)]
        return old, ([r for r in records if r.offset >= until.get((r.topic, r.partition), 0)] if old else records)

    def delivered(self, records: Sequence[Record]) -> dict[TopicPartition, int]:
        """Note that *records* were delivered; the next offset of each of their partitions."""
        ends = {(r.topic, r.partition): r.offset + 1 for r in records}
        for (topic, number), end in ends.items():
            place = self._places[TopicPartition(topic, number)]
            place.next_offset = end
            if place.replay_until and end > place.replay_until:
                place.replay_until = 0
        return {TopicPartition(*p): end for p, end in ends.items()}

    def _adopt(self, partition: TopicPartition, committed: int | None, origin: int | None) -> _Place:
        restored = self._handler.on_assigned(partition, committed)
        if restored is not None and committed is not None and restored > committed:
            raise ValueError(
                f"{partition}: the handler restored {restored}, but the group has committed only {committed}"
            )
        start = origin if committed is None else committed
        start = start if restored is None else restored
        replay_until = committed if committed is not None and start is not None and start < committed else 0
        if replay_until:
            first = self._consumer.beginning_offsets([partition])[partition]
            if first > (start or 0):
                _log.warning(
                    "replay.cut_short", topic=partition.topic, partition=partition.partition, wanted=start, first=first
                )
                start = first
        if start is not None:
            self._consumer.seek(partition, start)
        _log.info(
            "partition.assigned", topic=partition.topic, partition=partition.partition, committed=committed, start=start
        )
        return _Place(start, start, replay_until or 0)
