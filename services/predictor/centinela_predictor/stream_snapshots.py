"""When the stream's state is written to disk, and how it comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from centinela.clock import Clock
from centinela.errors import DependencyUnavailable
from centinela.features.layout import FeatureLayout
from centinela.features.snapshot import SnapshotDamaged
from centinela.features.store import SnapshotStore
from centinela.telemetry.health import Health
from centinela_predictor.state import PartitionState
from centinela_predictor.stream_metrics import SNAPSHOT_DURATION, SNAPSHOT_FAILURES
from centinela_predictor.terminal_feed import TerminalFeed

_log = structlog.get_logger(__name__)


class Snapshots:
    """Snapshots of partitions and of terminal state, each *interval_s* apart. A disk that refuses delays them, nothing else:
    a restart then replays more of the log.

    Args:
        store_of: The store of a partition.
        health: Told under ``disk`` when a snapshot fails.
    """

    def __init__(self, store_of: Callable[[int], SnapshotStore], feed: TerminalFeed, clock: Clock, health: Health, interval_s: float,
                 dedupe_ids: int, layout: FeatureLayout) -> None:
        self._store_of, self._feed, self._clock, self._health = store_of, feed, clock, health
        self._interval_s, self._dedupe_ids, self._layout = interval_s, dedupe_ids, layout
        self._saved_at = clock.monotonic()
        self._saved: dict[int, int] = {}

    def restore(self, partition: int, committed: int | None) -> tuple[PartitionState, int] | None:
        """The newest state at or below *committed* with its offset, None where there is none.

        Where the group has committed nothing, snapshots are of an earlier life of the topic and are deleted.
        """
        self._saved.pop(partition, None)
        store = self._store_of(partition)
        if committed is None:
            store.clear()
            return None
        for position, data in store.load(committed):
            try:
                state = PartitionState.from_bytes(data, self._dedupe_ids, self._layout)
            except SnapshotDamaged as damaged:
                _log.warning("snapshot.refused", state="partition", partition=partition, position=position, detail=str(damaged))
                continue
            self._saved[partition] = position
            _log.info("snapshot.restored", state="partition", partition=partition, position=position, users=len(state.users))
            return state, position
        return None

    def save_due(self, states: Mapping[int, tuple[PartitionState, int | None]]) -> None:
        """Save everything that changed, if the last time is long enough ago."""
        if self._clock.monotonic() - self._saved_at < self._interval_s:
            return
        self._saved_at = self._clock.monotonic()
        results = [self.save(partition, state, position) for partition, (state, position) in states.items() if position is not None]
        if all([*results, self._guarded("terminals", self._feed.save)]):
            self._health.met("disk")

    def save(self, partition: int, state: PartitionState, position: int) -> bool:
        """Save *state* under the committed offset *position*, unless it is there already; False where the disk refused."""
        if self._saved.get(partition) == position:
            return True
        saved = self._guarded(f"partition {partition}", lambda: self._store_of(partition).save(position, state.to_bytes()))
        if saved:
            self._saved[partition] = position
        return saved

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
