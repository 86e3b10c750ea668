"""The protocol between a consumer loop and its handler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from centinela.deadletters.record import DeadLetter
from centinela.kafka.port import Outgoing, Record, TopicPartition


@dataclass
class Outcome:
    """What became of a batch. All of it is committed together with the offsets of the batch, or none.

    Attributes:
        events: Records to write.
        dead_letters: Records that fail however often they are tried.
        deferred: Per partition, the offset of the first record that was not processed: it and what follows in its
            partition are delivered again later; nothing from there on is committed.
        counts: Further outcomes by name (``{"duplicate": 3}``), for the metrics; each record counts once, so what
            is in none of these was ``processed``.
    """

    events: list[Outgoing] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    deferred: dict[TopicPartition, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


class Handler(Protocol):
    """Records in, outcome out; ``InvalidRecord`` is for the handler to turn into a dead letter. See
    ``StatefulHandler``."""

    def __call__(self, records: Sequence[Record]) -> Outcome:
        """Process *records*: in offset order within a partition, partitions mixed."""


class StatefulHandler:
    """A handler with state per partition: override what applies. Calls come from the loop's thread only.

    The life of a partition: ``on_assigned`` (restore) -> ``replay``* -> (``__call__`` -> ``on_committed``)* ->
    ``on_revoked`` (snapshot) -> ``on_dropped``. A partition that was lost, or whose transaction was aborted, is dropped
    without ``on_revoked``; after an abort ``on_assigned`` follows at once. ``position_known`` comes first where the
    group has no offset.
    """

    waiting_for: str = "the handler is not ready"
    """What ``ready`` waits for while it is False, in words."""

    def __call__(self, records: Sequence[Record]) -> Outcome:
        """Process *records*."""
        raise NotImplementedError

    def ready(self) -> bool:
        """False: the loop keeps its membership, but delivers nothing."""
        return True

    def position_known(self, partition: TopicPartition) -> int | None:
        """The group has no usable offset of *partition* (expired, deleted, past the end): the offset up to which this
        handler has processed it, where it knows that from elsewhere. It then counts as committed."""
        return None

    def on_assigned(self, partition: TopicPartition, committed: int | None) -> int | None:
        """*partition* is assigned to this loop; the group has committed *committed* (None: nothing ever).

        Returns:
            The offset to read from, at most *committed*: records before *committed* are passed to ``replay``.
            None: from *committed* on, else from the loop's start.
        """
        return None

    def replay(self, records: Sequence[Record]) -> None:
        """*records* were committed before: rebuild state from them, emit nothing."""

    def on_committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """A commit succeeded: state now is exactly that at *offsets* (next to read); the moment for a snapshot."""

    def on_revoked(self, partition: TopicPartition) -> None:
        """*partition* goes to another member; state is that of the last commit. ``on_dropped`` follows."""

    def on_dropped(self, partition: TopicPartition) -> None:
        """Forget *partition*'s state."""

    def idle(self) -> Outcome | None:
        """Called at intervals while no records come; the outcome is committed like any other."""
        return None


class Stateless(StatefulHandler):
    """Gives a function the whole protocol."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle

    def __call__(self, records: Sequence[Record]) -> Outcome:
        return self._handle(records)


def stateful(handler: Handler) -> StatefulHandler:
    """*handler* itself where it has the hooks, else wrapped so that it has."""
    return handler if isinstance(handler, StatefulHandler) else Stateless(handler)
