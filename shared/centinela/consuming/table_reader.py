"""Reads whole topics without a group: from the beginning to the end, then what is added. For tables of state."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import structlog

from centinela.clock import Clock, SystemClock
from centinela.consuming.outage import Outage
from centinela.errors import DependencyUnavailable
from centinela.kafka.connect import Client, consumer
from centinela.kafka.port import Consumer, Record, TopicPartition
from centinela.liveness.health import Health
from centinela.liveness.progress import PATIENCE, PartitionProgress, Patience, Progress
from centinela.liveness.watchdog import Watchdog
from centinela.settings import Settings

_log = structlog.get_logger(__name__)
_OBSERVE_S = 5.0
GROWTH_CHECK_S = 5.0
"""Interval at which a topic that is read is asked for new partitions."""


def assign_more(consumer: Consumer, positions: Mapping[TopicPartition, int], added: Collection[TopicPartition]) -> None:
    """Read *added* from their beginnings, and what is assigned already on from *positions*."""
    consumer.assign([*positions, *added])
    for partition, offset in positions.items():
        consumer.seek(partition, offset)
    _log.info("partitions.added", partitions=[f"{p.topic}-{p.partition}" for p in sorted(added)])


class TableReader:
    """Reads all partitions of *topics*, also those that they are given later. Not thread-safe.

    Args:
        reader: A consumer without a group, used by this reader only.
        batch: Most records given at once.
    """

    def __init__(
        self, reader: Consumer, topics: Sequence[str], *, batch: int = 5_000, clock: Clock | None = None
    ) -> None:
        self._consumer = reader
        self._topics = list(topics)
        self._batch = batch
        self._clock = clock or SystemClock()
        self._checked_at = self._clock.monotonic()
        self._partitions: frozenset[TopicPartition] = frozenset()
        self._targets: dict[TopicPartition, int] = {}

    @property
    def partitions(self) -> frozenset[TopicPartition]:
        """The partitions read; empty before the first read."""
        return self._partitions

    def poll(self, timeout_s: float) -> list[Record]:
        """The next records; empty after *timeout_s* without any.

        Raises:
            DependencyUnavailable: The brokers do not answer, or a topic does not exist.
        """
        self._assign()
        return self._consumer.poll(timeout_s, self._batch)

    def at_end(self) -> bool:
        """Whether everything has been read that was there when reading began, and when a partition was added."""
        if not self._partitions:
            return False
        done = [p for p, end in self._targets.items() if self._consumer.position(p) >= end]
        for partition in done:
            del self._targets[partition]
        return not self._targets

    def progress(self) -> dict[TopicPartition, PartitionProgress]:
        """The progress of each partition."""
        return {
            p: PartitionProgress(self._consumer.position(p), end)
            for p, end in self._consumer.end_offsets(self._partitions).items()
        }

    def read_to_end(self, timeout_s: float = 60.0) -> list[Record]:
        """All records up to the end as it is now. Meant for small topics; for large ones use ``poll`` and ``at_end``.

        Raises:
            DependencyUnavailable: The brokers do not answer, a topic does not exist, or *timeout_s* was not enough.
        """
        self._assign()
        self._targets = dict(self._consumer.end_offsets(self._partitions))
        deadline = time.monotonic() + timeout_s
        records: list[Record] = []
        while not self.at_end():
            if time.monotonic() >= deadline:
                raise DependencyUnavailable(
                    f"{self._topics} could not be read to the end within {timeout_s:g} s", dependency="kafka"
                )
            records += self._consumer.poll(0.2, self._batch)
        return records

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read *partition* from *offset* (from a snapshot) instead."""
        self._assign()
        self._consumer.seek(partition, offset)

    def close(self) -> None:
        """Release the consumer."""
        self._consumer.close()

    def _assign(self) -> None:
        if self._partitions:
            self._check_growth()
            return
        all_partitions: set[TopicPartition] = set()
        for topic in self._topics:
            if not (partitions := self._consumer.partitions_of(topic)):
                raise DependencyUnavailable(
                    f"topic {topic} does not exist: run `centinela topics create`", dependency="kafka"
                )
            all_partitions |= partitions
        self._targets = dict(self._consumer.end_offsets(all_partitions))
        self._consumer.assign(all_partitions)
        self._partitions = frozenset(all_partitions)

    def _check_growth(self) -> None:
        if (now := self._clock.monotonic()) - self._checked_at < GROWTH_CHECK_S:
            return
        self._checked_at = now
        found = frozenset[TopicPartition]().union(*(self._consumer.partitions_of(topic) for topic in self._topics))
        if added := found - self._partitions:
            self._add(added)

    def _add(self, partitions: frozenset[TopicPartition]) -> None:
        """Read *partitions* too, each from its beginning."""
        ends = self._consumer.end_offsets(partitions)
        assign_more(self._consumer, {p: self._consumer.position(p) for p in self._partitions}, partitions)
        self._targets |= ends
        self._partitions |= partitions


def open_table(settings: Settings, topics: Sequence[str], *, client: Client = "kafka-python") -> TableReader:
    """A reader of *topics* on the configured brokers."""
    return TableReader(consumer(settings, group=None, client=client), topics)


class TableFollower:
    """Applies every record of a table in order, for a thread of its own: ``threading.Thread(target=follower.run)``.

    Args:
        make: Builds the reader.
        apply: Called with each batch; what it raises ends ``run``.
        condition: Name under which *health* waits until the table was read to its end once.
        patience: How long reading may make no progress.
    """

    def __init__(
        self,
        make: Callable[[], TableReader],
        apply: Callable[[Sequence[Record]], None],
        *,
        health: Health,
        stop: threading.Event,
        condition: str,
        poll_timeout_s: float = 0.2,
        patience: Patience = PATIENCE,
        clock: Clock | None = None,
    ) -> None:
        self._make = make
        self._apply = apply
        self._health = health
        self._stop = stop
        self._condition = condition
        self._poll_timeout_s = poll_timeout_s
        self._clock = clock or SystemClock()
        self._patience = patience
        self._progress = Progress(patience.stuck_s, self._clock.monotonic())
        self._observed_at = float("-inf")
        self._outage = Outage(health, stop)
        health.wait_for(condition, "being read from the beginning")

    def run(self) -> None:
        """Read and follow until the stop event, waiting while the brokers do not answer."""
        self._progress.bind_to_thread()
        reader = self._make()
        try:
            with Watchdog(f"follow-{self._condition}", self._progress, self._health, self._patience, clock=self._clock):
                self._follow(reader)
        finally:
            reader.close()

    def _follow(self, reader: TableReader) -> None:
        caught_up = False
        while not self._stop.is_set():
            self._progress.beat(self._clock.monotonic())
            try:
                records = reader.poll(self._poll_timeout_s)
                if records:
                    with self._progress.at_work(self._clock):
                        self._apply(records)
                if not caught_up and reader.at_end():
                    caught_up = True
                    self._health.met(self._condition)
                    _log.info("table.caught_up", table=self._condition)
                self._observe(reader)
                self._outage.answered("kafka")
            except DependencyUnavailable as error:
                self._outage.failed(error)
                self._outage.back_off()

    def _observe(self, reader: TableReader) -> None:
        if (now := self._clock.monotonic()) - self._observed_at >= _OBSERVE_S:
            self._observed_at = now
            self._progress.observe(reader.progress(), now)
