"""Where the state of partitions is kept between processes: by topic incarnation and number of partitions."""

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
from centinela_predictor.state.admission import SCHEMA_ONLY, AdmissionRules
from centinela_predictor.state.partition_state import PartitionState
from centinela_predictor.state.repartition import repartition

_FOLDER = re.compile(r"^(.+)-(\d+)$")
_ROOT = "partitions"
_log = structlog.get_logger(__name__)


class LogChanged(CentinelaError):
    """``transactions`` is another topic than at the start, or has more partitions: the process must restart."""


class PartitionStores:
    """Snapshots of partition state in ``<folder>/partitions/<topic id>-<partitions>/<partition>``, and under the same
    names on shared storage.

    A topic that is deleted and created again has another id, one that has grown another number of partitions: state
    of one is never used for the other.

    Args:
        identify: Returns the identity of ``transactions`` as it is now.
        open_reader: Makes a consumer without a group that reads the whole log.
        dedupe_ids, layout: See ``PartitionState``.
        rules: See ``admit``.
    """

    def __init__(
        self,
        folder: Path,
        identify: Callable[[], TopicIdentity],
        open_reader: Callable[[], Consumer],
        clock: Clock,
        *,
        shared: SharedStorage | None = None,
        dedupe_ids: int = 1_000_000,
        layout: FeatureLayout = BASE_LAYOUT,
        rules: AdmissionRules = SCHEMA_ONLY,
    ) -> None:
        self._folder = folder / _ROOT
        self._identify = identify
        self.open_reader = open_reader
        self._clock = clock
        self._shared = shared
        self._dedupe_ids = dedupe_ids
        self._layout = layout
        self.rules = rules
        self._log: TopicIdentity | None = None
        self._grown = False

    @property
    def partitions(self) -> int:
        """How many partitions there are; ``open`` must have been called."""
        return self._opened.partitions

    @property
    def topic_id(self) -> str:
        """The incarnation of ``transactions``; ``open`` must have been called."""
        return self._opened.id

    @property
    def grown(self) -> bool:
        """Whether there is state of the same topic with another number of partitions."""
        return self._grown

    def open(self) -> None:
        """Check that the log is still the one that the state in memory belongs to.

        Raises:
            LogChanged: It is not.
            DependencyUnavailable: The brokers do not answer, or the topic does not exist.
        """
        log = self._identify()
        if self._log is None:
            self._grown = any(
                topic_id == log.id and partitions != log.partitions for topic_id, partitions in self._incarnations()
            )
            self._log = log
            if self._grown:
                _log.info("partitions.grown", topic=TRANSACTIONS.name, partitions=log.partitions)
        elif log != self._log:
            self._refuse(log.partitions if log.id == self._log.id else None)

    def check_partitions(self, count: int) -> None:
        """Check that the topic still has as many partitions; *count* is 0 where it is not known.

        Raises:
            LogChanged: It has more.
        """
        if self._log is not None and count not in (0, self._log.partitions):
            self._refuse(count)

    def new_state(self) -> PartitionState:
        """The state of a partition before its first record."""
        return PartitionState(self._dedupe_ids, self._layout, self.rules.rates.base)

    def load(self, partition: int, at_most: int) -> tuple[PartitionState, int] | None:
        """The newest usable state at or below the offset *at_most*, with its offset; None where there is none.

        Raises:
            DependencyUnavailable: The disk fails.
        """
        for position, data in self._store(partition).load(at_most):
            try:
                state = PartitionState.from_bytes(data, self._dedupe_ids, self._layout, self.rules.rates.base)
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
            DependencyUnavailable: The disk fails.
        """
        self._store(partition).save(position, state.to_bytes())

    def repartition(self, until: Mapping[int, int]) -> list[PartitionState]:
        """The states of all partitions, each at its offset in *until*, from the whole log.

        Raises:
            DependencyUnavailable: The brokers are unavailable.
        """
        _log.info("repartition.started", topic=TRANSACTIONS.name, partitions=len(until))
        reader = self.open_reader()
        try:
            states = repartition(
                reader, TRANSACTIONS.name, until, self._clock.now(), self._layout, self._dedupe_ids, self.rules
            )
        finally:
            reader.close()
        _log.info("repartition.finished", topic=TRANSACTIONS.name, users=[len(state.users) for state in states])
        return states

    def forget_other_topics(self) -> None:
        """Remove the state of earlier incarnations of the topic from the disk."""
        for topic_id, partitions in self._incarnations(on_disk_only=True):
            if topic_id != self._opened.id:
                shutil.rmtree(self._folder / f"{topic_id}-{partitions}", ignore_errors=True)

    @property
    def _opened(self) -> TopicIdentity:
        if self._log is None:
            raise DependencyUnavailable(f"topic {TRANSACTIONS.name} was not reached yet", dependency="kafka")
        return self._log

    def _store(self, partition: int) -> SnapshotStore:
        name = f"{self._opened.id}-{self._opened.partitions}"
        shared = self._shared.folder(f"{_ROOT}/{name}/{partition}") if self._shared is not None else None
        return SnapshotStore(self._folder / name / str(partition), shared=shared)

    def _incarnations(self, *, on_disk_only: bool = False) -> set[tuple[str, int]]:
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
        change = (
            "is another topic than when this process started"
            if partitions is None
            else f"has {partitions} partitions, {self._opened.partitions} when this process started"
        )
        raise LogChanged(
            f"topic {TRANSACTIONS.name} {change}: this process ends and must be restarted with the state of the topic"
            " as it is now"
        )
