"""Carries the committed offsets of a consumer group over from the name that it had before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from centinela.errors import DependencyUnavailable
from centinela.groups import ConsumerGroup
from centinela.kafka.connect import Client, consumer, group_admin
from centinela.kafka.port import Consumer, GroupAdmin, TopicPartition
from centinela.settings import Settings

_log = structlog.get_logger(__name__)


class OffsetCarryOver:
    """Called by a loop before it subscribes. It commits, for partitions of which the group has committed nothing, what
    the former group has committed.

    The former group's members may still commit, and what a member commits in a transaction may still be open: offsets
    are taken only while the group has no members, and by a read_committed reader, which waits for open transactions.

    Args:
        group: The group with its former name.
        former_reader: Makes a consumer of the former group, which only reads its offsets.
        admin: Administers the groups.
        has_position: Whether the position in a partition is known from elsewhere: then it was read under the new name,
            and what the former group has committed is out of date.
    """

    def __init__(
        self,
        group: ConsumerGroup,
        former_reader: Callable[[], Consumer],
        admin: GroupAdmin,
        has_position: Callable[[TopicPartition], bool] = lambda _: False,
    ) -> None:
        self._group = group
        self._former_reader = former_reader
        self._admin = admin
        self._has_position = has_position

    def __call__(self, reader: Consumer, topics: Sequence[str]) -> None:
        """Carry over what *reader*, a consumer of the group, has not committed of *topics*.

        Raises:
            DependencyUnavailable: The former group still has members, or the brokers do not answer: call again.
        """
        partitions = [partition for topic in topics for partition in sorted(reader.partitions_of(topic))]
        committed = reader.committed(partitions)
        missing = [p for p in partitions if committed[p] is None and not self._has_position(p)]
        if self._group.former is None or not missing or not self._former_offsets(missing):
            return
        if members := self._admin.members(self._group.former):
            raise DependencyUnavailable(
                f"consumer group {self._group.former} has {members} members: it is called {self._group.name} now, so"
                " end the processes of the earlier version",
                dependency="kafka",
            )
        offsets = self._former_offsets(missing)
        self._admin.commit(self._group.name, offsets)
        _log.info(
            "group.offsets_carried_over",
            former_group=self._group.former,
            group=self._group.name,
            offsets={f"{p.topic}-{p.partition}": offset for p, offset in sorted(offsets.items())},
        )

    def _former_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        former = self._former_reader()
        try:
            committed = former.committed(partitions)
        finally:
            former.close()
        return {p: offset for p, offset in committed.items() if offset is not None}


def carry_over(
    settings: Settings,
    group: ConsumerGroup,
    *,
    client: Client = "kafka-python",
    has_position: Callable[[TopicPartition], bool] = lambda _: False,
) -> OffsetCarryOver:
    """The carry-over of *group* on the configured brokers."""
    return OffsetCarryOver(
        group,
        lambda: consumer(settings, group=group.former, client=client),
        group_admin(settings),
        has_position,
    )
