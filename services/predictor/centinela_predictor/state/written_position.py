"""How far the stream is in each partition of ``transactions``, by its own records.

Every block of ``terminal-activity`` is written in the transaction that commits its partition's offset, so it says the
same as the group's offset. It is asked where the group has none: brokers delete the offsets of a group without members
after a while, and an operator may delete a group.
"""

from __future__ import annotations

from collections.abc import Callable

from centinela.errors import CentinelaError, DependencyUnavailable, InvalidRecord
from centinela.groups import STREAM
from centinela.kafka.headers import header
from centinela.kafka.port import Consumer, Record, TopicPartition
from centinela.topics import PREDICTIONS, TERMINAL_ACTIVITY, TRANSACTIONS
from centinela_predictor.state.terminal_activity import unpack_block

_POSITION = "stream.position"
_FEW = 64
_BATCH = 1_000


class PositionUnknown(CentinelaError):
    """The group has no offset, and nothing says what has its verdict already: an operator must decide."""


def position_header(topic_id: str, offset: int) -> tuple[str, bytes]:
    """The header of a block: up to *offset* of this incarnation of ``transactions`` everything has its outcome."""
    return _POSITION, f"{topic_id}:{offset}".encode()


class WrittenPositions:
    """Finds what ``position_header`` has written.

    Args:
        open_reader: Makes a consumer without a group. It asks for offsets too: on the connection of a consumer that
            fetches, each such request waits for the fetch before it.
    """

    def __init__(self, open_reader: Callable[[], Consumer]) -> None:
        self._open_reader = open_reader

    def of(self, partition: int, topic_id: str) -> int | None:
        """The next offset to process of *partition*; None where this incarnation of it was never read.

        Raises:
            PositionUnknown: There are verdicts, but no position.
            DependencyUnavailable: The brokers are unavailable.
        """
        reader = self._open_reader()
        try:
            return _position(reader, partition, topic_id)
        finally:
            reader.close()


def _position(reader: Consumer, partition: int, topic_id: str) -> int | None:
    blocks = TopicPartition(TERMINAL_ACTIVITY.name, partition)
    if blocks not in reader.partitions_of(TERMINAL_ACTIVITY.name):
        raise DependencyUnavailable(
            f"topic {TERMINAL_ACTIVITY.name} has no partition {partition}: see `centinela topics check`",
            dependency="kafka",
        )
    first, end = reader.beginning_offsets([blocks])[blocks], reader.end_offsets([blocks])[blocks]
    newest = _newest_block(reader, blocks, first, end)
    written = None if newest is None else header(newest.headers, _POSITION)
    if written is not None:
        incarnation, _, offset = written.rpartition(":")
        return int(offset) if incarnation == topic_id else None
    never_committed = newest is None and first == 0
    if never_committed and (end or _was_written(reader, TERMINAL_ACTIVITY.name)):
        return None
    if not _was_written(reader, PREDICTIONS.name) or _is_empty(reader, TopicPartition(TRANSACTIONS.name, partition)):
        return None
    raise _unknown(partition)


def _was_written(reader: Consumer, topic: str) -> bool:
    """Whether anything was ever written to *topic*, also what was aborted or has expired."""
    return any(reader.end_offsets(reader.partitions_of(topic)).values())


def _is_empty(reader: Consumer, partition: TopicPartition) -> bool:
    return reader.beginning_offsets([partition]) == reader.end_offsets([partition])


def _newest_block(reader: Consumer, partition: TopicPartition, first: int, end: int) -> Record | None:
    """The last committed block of *partition*; what is last in the log may be a transaction's marker."""
    if first >= end:
        return None
    reader.assign([partition])
    span = _FEW
    while True:
        start = max(first, end - span)
        newest = None
        reader.seek(partition, start)
        while reader.position(partition) < end:
            records = reader.poll(0.2, _BATCH)
            newest = next(filter(_is_block, reversed(records)), newest)
        if newest is not None or start == first:
            return newest
        span *= 8


def _is_block(record: Record) -> bool:
    try:
        unpack_block(record.value)
    except InvalidRecord:
        return False
    return True


def _unknown(partition: int) -> PositionUnknown:
    return PositionUnknown(
        f"consumer group {STREAM.name} has no offset of {TRANSACTIONS.name}-{partition}, and {TERMINAL_ACTIVITY.name}"
        " does not say what has its verdict already: from the beginning, transactions would get a second verdict. Set"
        f" the offset, then start again: kafka-consumer-groups.sh --bootstrap-server ... --group {STREAM.name} --topic"
        f" {TRANSACTIONS.name}:{partition} --reset-offsets --to-offset N --execute (--to-latest: what is there now has"
        " its verdicts; --to-earliest: nothing has). See docs/reliability.md, Group offsets"
    )
