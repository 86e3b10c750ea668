"""Where the state of partitions lives between processes: by life of the topic and number of its partitions."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from centinela.clock import Clock
from centinela.errors import CentinelaError, DependencyUnavailable
from centinela.features.layout import BASE_LAYOUT, FeatureLayout
from centinela.features.snapshots.format import SnapshotDamaged
from centinela.features.snapshots.shared_store import SharedStorage
from centinela.features.snapshots.store import SnapshotStore
from centinela.kafka.port import Consumer, TopicIdentity
from centinela.topics import TRANSACTIONS
from centinela_predictor.state.partition_state import PartitionState
from centinela_predictor.state.repartition import regroup

_FOLDER = re.compile(r"^(.+)-(\d+)$")
_ROOT = "partitions"
_log = structlog.get_logger(__name__)


class LogChanged(CentinelaError):
    """``transactions`` is another topic than at the start, or has more partitions: the process must begin anew."""


class PartitionHome:
    """Snapshots of partition state in ``<folder>/partitions/<topic id>-<partitions>/<partition>``, and likewise on
    shared storage.

    A topic made anew has another id, a grown one another number: their state is never taken for each other's.

    Args:
        identify: Tells which ``transactions`` there is now.
        reader_of: Makes a consumer without a group, to read the whole log with.
        dedupe_ids, layout: See ``PartitionState``.
    """

    def __init__(
        self,
        folder: Path,
        identify: Callable[[], TopicIdentity],
        reader_of: Callable[[], Consumer],
        clock: Clock,
        *,
        shared: SharedStorage | None = None,
        dedupe_ids: int = 1_000_000,
        layout: FeatureLayout = BASE_LAYOUT,
    ) -> None:
        self._folder, self._identify, self._reader_of, self._clock = folder / _ROOT, identify, reader_of, clock
        self._shared, self._dedupe_ids, self._layout = shared, dedupe_ids, layout
        self._log: TopicIdentity | None = None
        self._grown = False

    @property
    def partitions(self) -> int:
        """How many partitions there are; ``open`` must have been called."""
        return self._opened.partitions

    @property
    def grown(self) -> bool:
        """Whether there is state of the same topic with another number of partitions."""
        return self._grown

    def open(self) -> None:
        """See that the log is the one that state in memory is of.

        Raises:
            LogChanged: It is not.
            DependencyUnavailable: The brokers do not answer, or the topic does not exist.
        """
        log = self._identify()
        if self._log is None:
            self._grown = any(life == log.id and partitions != log.partitions for life, partitions in self._lives())
            self._log = log
            if self._grown:
                _log.info("partitions.grown", topic=TRANSACTIONS.name, partitions=log.partitions)
        elif log != self._log:
            self._refuse(log.partitions if log.id == self._log.id else None)

    def check_partitions(self, found: int) -> None:
        """See that the topic still has as many partitions; *found* is 0 where that is not known.

        Raises:
            LogChanged: It has more.
        """
        if self._log is not None and found not in (0, self._log.partitions):
            self._refuse(found)

    def new_state(self) -> PartitionState:
        """The state of a partition of which nothing was read."""
        return PartitionState(self._dedupe_ids, self._layout)

    def load(self, partition: int, at_most: int) -> tuple[PartitionState, int] | None:
        """The newest usable state at or below the offset *at_most*, with its offset; None where there is none.

        Raises:
            DependencyUnavailable: The disk refuses.
        """
        for position, data in self._store(partition).load(at_most):
            try:
                state = PartitionState.from_bytes(data, self._dedupe_ids, self._layout)
            except SnapshotDamaged as damaged:
                _log.warning(
                    "snapshot.refused", state="partition", partition=partition, position=position, detail=str(damaged)
                )
                continue
            _log.info(
                "snapshot.restored", state="partition", partition=partition, position=position, users=len(state.users)
            )
            return state, position
        return None

    def save(self, partition: int, state: PartitionState, position: int) -> None:
        """Keep *state* as that of the offset *position*.

        Raises:
            DependencyUnavailable: The disk refuses.
        """
        self._store(partition).save(position, state.to_bytes())

    def regroup(self, until: Mapping[int, int]) -> list[PartitionState]:
        """The states of all partitions, each at its offset in *until*, from the whole log.

        Raises:
            DependencyUnavailable: The brokers are away.
        """
        _log.info("regroup.started", topic=TRANSACTIONS.name, partitions=len(until))
        reader = self._reader_of()
        try:
            states = regroup(reader, TRANSACTIONS.name, until, self._clock.now(), self._layout, self._dedupe_ids)
        finally:
            reader.close()
        _log.info("regroup.done", topic=TRANSACTIONS.name, users=[len(state.users) for state in states])
        return states

    def forget_other_topics(self) -> None:
        """Remove from the disk what belongs to earlier lives of the topic."""
        for life, partitions in self._lives(on_disk_only=True):
            if life != self._opened.id:
                shutil.rmtree(self._folder / f"{life}-{partitions}", ignore_errors=True)

    @property
    def _opened(self) -> TopicIdentity:
        if self._log is None:
            raise DependencyUnavailable(f"topic {TRANSACTIONS.name} was not reached yet", dependency="kafka")
        return self._log

    def _store(self, partition: int) -> SnapshotStore:
        name = f"{self._opened.id}-{self._opened.partitions}"
        shared = self._shared.folder(f"{_ROOT}/{name}/{partition}") if self._shared is not None else None
        return SnapshotStore(self._folder / name / str(partition), shared=shared)

    def _lives(self, *, on_disk_only: bool = False) -> set[tuple[str, int]]:
        try:
            names = {path.name for path in self._folder.iterdir()}
        except FileNotFoundError:
            names = set()
        except OSError as error:
            raise DependencyUnavailable(f"cannot read {self._folder}: {error}", dependency="disk") from error
        if self._shared is not None and not on_disk_only:
            names |= self._shared.folder(_ROOT).folders()
        return {(match[1], int(match[2])) for name in names if (match := _FOLDER.match(name))}

    def _refuse(self, partitions: int | None) -> None:
        what = (
            "is another topic than when this process started"
            if partitions is None
            else f"has {partitions} partitions, {self._opened.partitions} when this process started"
        )
        raise LogChanged(
            f"topic {TRANSACTIONS.name} {what}: this process ends, to begin anew with the state of the topic as it is"
        )
