"""Builds where feature state is kept, for both roles."""

from __future__ import annotations

from dataclasses import dataclass

from centinela.clock import Clock
from centinela.features.configured import layout_of
from centinela.features.snapshots.shared_store import SharedStorage
from centinela.features.snapshots.store import SnapshotStore
from centinela.kafka.connect import consumer, topic_admin
from centinela.kafka.topic_admin import TopicAdmin
from centinela.topics import LABELS, TERMINAL_ACTIVITY, TRANSACTIONS
from centinela_predictor.settings import PredictorSettings
from centinela_predictor.state.partition_store import PartitionHome


@dataclass(frozen=True)
class StateHomes:
    """Where the state of partitions and of terminals is kept; call ``close`` at the end."""

    settings: PredictorSettings
    partitions: PartitionHome
    admin: TopicAdmin
    shared: SharedStorage | None

    def terminals(self) -> SnapshotStore:
        """This replica's snapshots of terminal state, for the topics as they are now.

        Raises:
            DependencyUnavailable: The brokers do not answer, or a topic does not exist.
        """
        lives = "-".join(self.admin.identify(topic.name).id for topic in (TERMINAL_ACTIVITY, LABELS))
        name = f"terminals-{self.settings.slot}/{lives}"
        return SnapshotStore(
            self.settings.state_dir / name, shared=self.shared.folder(name) if self.shared is not None else None
        )

    def close(self) -> None:
        """Let uploads finish, and release the connection."""
        if self.shared is not None:
            self.shared.close()
        self.admin.close()


def build_homes(settings: PredictorSettings, clock: Clock) -> StateHomes:
    """Nothing is connected before it is needed.

    Raises:
        CentinelaError: ``snapshot_url`` is of a kind that no driver is installed for.
    """
    shared = SharedStorage(settings.snapshot_url) if settings.snapshot_url else None
    admin = topic_admin(settings)
    partitions = PartitionHome(
        settings.state_dir,
        lambda: admin.identify(TRANSACTIONS.name),
        lambda: consumer(settings, group=None, client="confluent"),
        clock,
        shared=shared,
        dedupe_ids=settings.dedupe_ids,
        layout=layout_of(settings),
    )
    return StateHomes(settings, partitions, admin, shared)
