"""When the stream's state is written to disk, and how it is restored."""

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
from centinela_predictor.state.partition_store import PartitionStores
from centinela_predictor.state.terminal_feed import TerminalFeed
from centinela_predictor.state.written_position import WrittenPositions

_log = structlog.get_logger(__name__)


class Snapshots:
    """Snapshots of partitions and of terminal state, taken every *interval_s*. A disk that fails only delays them: a
    restart then replays more of the log.

    Args:
        reader: The source of the group's offsets and of the topic's partitions.
        health: Its condition ``disk`` is unmet while snapshots fail.
    """

    def __init__(
        self,
        stores: PartitionStores,
        reader: Consumer,
        feed: TerminalFeed,
        clock: Clock,
        health: Health,
        interval_s: float,
    ) -> None:
        self._stores = stores
        self._reader = reader
        self._written = WrittenPositions(stores.open_reader)
        self._feed = feed
        self._clock = clock
        self._health = health
        self._interval_s = interval_s
        self._saved_at = clock.monotonic()
        self._saved: dict[int, int] = {}

    def written_position(self, partition: int) -> int | None:
        """The next offset to process of *partition* by what the stream has written; None where it never read it.

        Raises:
            PositionUnknown: It has written verdicts, but not where it was.
            LogChanged, DependencyUnavailable: See ``restore``.
        """
        self._stores.open()
        return self._written.of(partition, self._stores.topic_id)

    def restore(self, partition: int, committed: int | None) -> tuple[PartitionState, int] | None:
        """The newest state at or below *committed* with its offset, None where there is none.

        Where the topic has grown, all states are built once from the whole log, and saved.

        Raises:
            LogChanged: The topic is not the one that the process started with.
            DependencyUnavailable: The brokers or the disk are unavailable.
        """
        self._saved.pop(partition, None)
        self._stores.open()
        restored = self._stores.load(partition, committed or 0)
        if restored is None and self._stores.grown:
            self._repartition()
            restored = self._stores.load(partition, committed or 0)
        if restored is None and committed is None:
            self._stores.forget_other_topics()
        if restored is not None:
            self._saved[partition] = restored[1]
        return restored

    def _repartition(self) -> None:
        everything = [TopicPartition(TRANSACTIONS.name, number) for number in range(self._stores.partitions)]
        until = {
            number: (self.written_position(number) or 0) if offset is None else offset
            for (_, number), offset in self._reader.committed(everything).items()
        }
        for number, state in enumerate(self._stores.repartition(until)):
            self._stores.save(number, state, until[number])

    def save_due(self, states: Mapping[int, tuple[PartitionState, int | None]]) -> None:
        """Save everything that has changed, once per interval.

        Raises:
            LogChanged: The topic has grown.
        """
        if self._clock.monotonic() - self._saved_at < self._interval_s:
            return
        self._saved_at = self._clock.monotonic()
        self._stores.check_partitions(self._partitions_now())
        results = [
            self.save(partition, state, position)
            for partition, (state, position) in states.items()
            if position is not None
        ]
        if all([*results, self._guarded("terminals", self._feed.save)]):
            self._health.met("disk")

    def save(self, partition: int, state: PartitionState, position: int) -> bool:
        """Save *state* under the committed offset *position*, unless it is already there; False where the disk
        failed."""
        if self._saved.get(partition) == position:
            return True
        saved = self._guarded(f"partition {partition}", lambda: self._stores.save(partition, state, position))
        if saved:
            self._saved[partition] = position
        return saved

    def _partitions_now(self) -> int:
        try:
            return len(self._reader.partitions_of(TRANSACTIONS.name))
        except DependencyUnavailable:
            return 0

    def _guarded(self, name: str, save: Callable[[], None]) -> bool:
        try:
            with SNAPSHOT_DURATION.time():
                save()
        except DependencyUnavailable as error:
            SNAPSHOT_FAILURES.inc()
            self._health.wait_for("disk", str(error))
            _log.warning("snapshot.failed", state=name, detail=str(error))
            return False
        return True
