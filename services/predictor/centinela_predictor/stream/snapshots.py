"""When the stream's state is written to disk, and how it comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from centinela.clock import Clock
from centinela.errors import DependencyUnavailable
from centinela.kafka.port import Consumer, TopicPartition
from centinela.liveness.health import Health
from centinela.topics import TRANSACTIONS
from centinela_predictor.state.metrics import SNAPSHOT_DURATION, SNAPSHOT_FAILURES
from centinela_predictor.state.partition_state import PartitionState
from centinela_predictor.state.partition_store import PartitionHome
from centinela_predictor.state.terminal_feed import TerminalFeed

_log = structlog.get_logger(__name__)


class Snapshots:
    """Snapshots of partitions and of terminal state, each *interval_s* apart. A disk that refuses delays them, nothing
    else: a restart then replays more of the log.

    Args:
        reader: Asked for the group's offsets and for the topic's partitions.
        health: Told under ``disk`` when a snapshot fails.
    """

    def __init__(
        self, home: PartitionHome, reader: Consumer, feed: TerminalFeed, clock: Clock, health: Health, interval_s: float
    ) -> None:
        self._home, self._reader, self._feed, self._clock, self._health = home, reader, feed, clock, health
        self._interval_s = interval_s
        self._saved_at = clock.monotonic()
        self._saved: dict[int, int] = {}

    def restore(self, partition: int, committed: int | None) -> tuple[PartitionState, int] | None:
        """The newest state at or below *committed* with its offset, None where there is none.

        Where the topic has grown, all states are made anew from the whole log once, and kept.

        Raises:
            LogChanged: The topic is not the one that the process began with.
            DependencyUnavailable: The brokers or the disk are away.
        """
        self._saved.pop(partition, None)
        self._home.open()
        found = self._home.load(partition, committed or 0)
        if found is None and self._home.grown:
            self._regroup()
            found = self._home.load(partition, committed or 0)
        if found is None and committed is None:
            self._home.forget_other_topics()
        if found is not None:
            self._saved[partition] = found[1]
        return found

    def _regroup(self) -> None:
        everything = [TopicPartition(TRANSACTIONS.name, number) for number in range(self._home.partitions)]
        until = {partition.partition: offset or 0 for partition, offset in self._reader.committed(everything).items()}
        for number, state in enumerate(self._home.regroup(until)):
            self._home.save(number, state, until[number])

    def save_due(self, states: Mapping[int, tuple[PartitionState, int | None]]) -> None:
        """Save everything that changed, if the last time is long enough ago.

        Raises:
            LogChanged: The topic has grown.
        """
        if self._clock.monotonic() - self._saved_at < self._interval_s:
            return
        self._saved_at = self._clock.monotonic()
        self._home.check_partitions(self._partitions_now())
        results = [
            self.save(partition, state, position)
            for partition, (state, position) in states.items()
            if position is not None
        ]
        if all([*results, self._guarded("terminals", self._feed.save)]):
            self._health.met("disk")

    def save(self, partition: int, state: PartitionState, position: int) -> bool:
        """Save *state* under the committed offset *position*, unless it is there already; False where the disk
        refused."""
        if self._saved.get(partition) == position:
            return True
        saved = self._guarded(f"partition {partition}", lambda: self._home.save(partition, state, position))
        if saved:
            self._saved[partition] = position
        return saved

    def _partitions_now(self) -> int:
        try:
            return len(self._reader.partitions_of(TRANSACTIONS.name))
        except DependencyUnavailable:
            return 0

    def _guarded(self, what: str, save: Callable[[], None]) -> bool:
        try:
            with SNAPSHOT_DURATION.time():
                save()
        except DependencyUnavailable as error:
            SNAPSHOT_FAILURES.inc()
            self._health.wait_for("disk", str(error))
            _log.warning("snapshot.failed", state=what, detail=str(error))
            return False
        return True
