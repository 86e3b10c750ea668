"""The port: what Centinela requires of a Kafka client. Both adapters and the fake pass
``tests/contract/test_kafka_port_*.py``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

Headers = tuple[tuple[str, bytes], ...]


class TopicPartition(NamedTuple):
    topic: str
    partition: int


class Record(NamedTuple):
    """A record as read. ``timestamp_ms`` is Kafka's own record time, never event time."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int = 0


class Outgoing(NamedTuple):
    """A record to write. ``partition`` None: murmur2 of the key, in every adapter; no key: any partition."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int | None = None


class Rebalance(NamedTuple):
    """What changed since it was last taken. A lost partition may already belong to another member."""

    assigned: frozenset[TopicPartition] = frozenset()
    revoked: frozenset[TopicPartition] = frozenset()
    lost: frozenset[TopicPartition] = frozenset()


class TopicIdentity(NamedTuple):
    """A topic incarnation: ``id`` is a new one each time the topic is created, ``partitions`` may grow."""

    id: str
    partitions: int


class Consumer(Protocol):
    """A consumer with auto-commit off and ``isolation_level=read_committed``. Not thread-safe.

    Nothing is sent before the first call that needs a broker. Every call raises ``DependencyUnavailable`` where the
    brokers do not answer within the adapter's request time-out; ``poll`` does so after a few empty seconds, and then at
    once until they answer again.
    """

    def subscribe(self, topics: Collection[str]) -> None:
        """Join the group for *topics*; partitions arrive with a later ``poll``."""

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Read these partitions without a group, each from its start unless ``seek`` follows."""

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        """Up to *max_records*, in offset order within a partition; empty after *timeout_s* without any.

        Partitions take turns, if not in every call: a backlog of one holds up another by some thousands of its records,
        however long it is.

        The call returns early, empty, when the assignment changed: take it with ``take_rebalance`` first.
        """

    def take_rebalance(self) -> Rebalance | None:
        """The change of assignment since the last call, or None. No record of a new partition comes before it is
        taken."""

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions read now."""

    def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """The group's committed offset (next to read) of each, None where nothing was committed."""

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The first offset kept of each."""

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The last stable offset of each: the position at which a read_committed reader has read all there is."""

    def position(self, partition: TopicPartition) -> int:
        """The offset that the next record read will have at least. Moves past transaction markers."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from *offset*."""

    def hold(self, offsets: Mapping[TopicPartition, int | None]) -> None:
        """Deliver nothing of these until ``release``; then read on from the offset (None: from the position).

        The other partitions are read on meanwhile. A partition that is revoked or lost is no longer held.
        """

    def release(self, partitions: Collection[TopicPartition]) -> None:
        """Deliver records of these again."""

    def partitions_of(self, topic: str) -> frozenset[TopicPartition]:
        """All partitions of *topic*; empty where it does not exist."""

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit without a transaction (next offsets to read).

        Raises:
            TransactionAborted: The group moved on without this member: drop what was not committed and read it again.
        """

    def close(self) -> None:
        """Leave the group and release everything. Idempotent."""


class GroupAdmin(Protocol):
    """Administers consumer groups. Every call raises ``DependencyUnavailable`` where the brokers do not answer."""

    def members(self, group: str) -> int:
        """How many members *group* has now; 0 where it does not exist."""

    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit *offsets* (next to read) for *group*; ``DependencyUnavailable`` where it has members."""


class Producer(Protocol):
    """An idempotent producer, acks=all. Thread-safe."""

    def send(self, record: Outgoing) -> Delivery:
        """Queue *record*. Raises ``DependencyUnavailable`` where the queue is full, ``InvalidRecord`` (``too_large``)
        past the limit."""

    def flush(self, timeout_s: float) -> None:
        """Wait until everything sent is acknowledged. Raises ``DependencyUnavailable`` where that takes longer."""

    def close(self) -> None:
        """Flush for a short while and release. Idempotent."""


class Delivery(Protocol):
    """The outcome of one send."""

    def wait(self, timeout_s: float) -> None:
        """Return when the broker has acknowledged; raise ``DependencyUnavailable`` where it does not in time."""


class TransactionalProducer(Protocol):
    """Consume-process-produce: what is sent and the offsets read become visible together or not at all.

    Every call raises ``DependencyUnavailable`` where the brokers do not answer, and ``ProducerFenced`` once fenced.
    """

    def init(self) -> None:
        """Fence earlier producers of this transactional id and end their open transaction."""

    def begin(self) -> None:
        """Open a transaction."""

    def send_all(self, records: Sequence[Outgoing]) -> None:
        """Queue *records* in the open transaction. Raises ``InvalidRecord`` (``too_large``) for one past the limit."""

    def commit(self, offsets: Mapping[TopicPartition, int], consumer: Consumer) -> None:
        """Commit what was sent with *consumer*'s offsets (next to read).

        Raises:
            TransactionAborted: The transaction failed (stale group member, delivery failure): abort, rebuild and
                re-read.
            DependencyUnavailable: No answer in time, so the outcome is unknown: abort settles it, then rebuild and
                re-read.
            ProducerFenced: Another producer took over: the process must end.
        """

    def abort(self) -> None:
        """Abort the open transaction, if any, so that the next can begin.

        After a commit without an answer it fences its own earlier self, so that the outcome is settled before offsets
        are asked for.
        """

    def close(self) -> None:
        """Abort what is open and release. Idempotent."""
