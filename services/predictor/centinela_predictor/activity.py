"""Blocks of ``terminal-activity``, and the gate that keeps partitions within reach of each other in event time [P]."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from centinela.errors import InvalidRecord
from centinela.features.keys import Hashes, Int64s
from centinela.features.terminals import SKEW_MS

IDLE = (1 << 63) - 1
"""Watermark of a partition that nobody needs to wait for."""
_HEADER = struct.Struct("<4sIqQQ")
_MAGIC = b"TAB1"


class Block(NamedTuple):
    """The terminals' transactions of one committed batch of one partition.

    All activity of the partition up to ``watermark`` (event time, ms) is in this block or an earlier one. ``writer`` and
    ``sequence`` name the block. ``terminals`` and ``ids`` are hashes, ``times`` ms; each of shape (n,).
    """

    watermark: int
    writer: int
    sequence: int
    terminals: Hashes
    times: Int64s
    ids: Hashes


def pack_block(block: Block) -> bytes:
    """*block* as 32 bytes and 24 per transaction, little-endian."""
    header = _HEADER.pack(_MAGIC, len(block.ids), block.watermark, block.writer, block.sequence)
    return b"".join((header, block.terminals.astype("<u8").tobytes(), block.times.astype("<i8").tobytes(), block.ids.astype("<u8").tobytes()))


def unpack_block(value: bytes | None) -> Block:
    """The block that *value* holds.

    Raises:
        InvalidRecord: ``invalid_block``.
    """
    if value is None or len(value) < _HEADER.size:
        raise InvalidRecord("invalid_block", "shorter than a block's header")
    magic, n, watermark, writer, sequence = _HEADER.unpack_from(value)
    if magic != _MAGIC or len(value) != _HEADER.size + 24 * n:
        raise InvalidRecord("invalid_block", f"{len(value)} bytes beginning with {magic!r} are no block of {n} transactions")
    terminals, times, ids = (
        np.frombuffer(value, dtype, n, _HEADER.size + 8 * n * column) for column, dtype in enumerate(("<u8", "<i8", "<u8"))
    )
    return Block(watermark, writer, sequence, terminals.astype(np.uint64), times.astype(np.int64), ids.astype(np.uint64))


class Gate:
    """How far in event time a transaction may be scored, so that the terminal windows it reads are complete.

    Those windows end 7 days before the transaction, and events may be 2 days late: it may be scored as soon as every partition has
    announced a watermark no more than 5 days behind it. A partition held back announces the time of the transaction that it holds, so the one
    that is furthest behind always goes on. A partition without records for a while is announced ``IDLE`` by its owner and
    then counts as infinitely far; the first record it gets brings its watermark back. Until every partition has
    announced something, nothing with a terminal is scored: at a cold start that takes as long as an owner needs to call its empty
    partitions idle (``CENTINELA_IDLE_AFTER_S``). A partition whose owner died stays where it is until it has a new owner.

    Args:
        partitions: All partitions of ``transactions``.
    """

    def __init__(self, partitions: Iterable[int]) -> None:
        self._watermarks: dict[int, int | None] = dict.fromkeys(partitions)

    def announce(self, partition: int, watermark: int) -> None:
        """*partition* stands at *watermark*, or is ``IDLE``. A partition that ``transactions`` does not have is ignored."""
        if partition in self._watermarks:
            self._watermarks[partition] = watermark

    def announced(self, partition: int) -> int | None:
        """The last word on *partition*, None where there is none."""
        return self._watermarks.get(partition)

    @property
    def limit(self) -> int | None:
        """Latest event time (ms) that may be scored; None where nothing may; ``IDLE`` where anything may."""
        least = IDLE
        for watermark in self._watermarks.values():
            if watermark is None:
                return None
            least = min(least, watermark)
        return least if least == IDLE else least + SKEW_MS

    def facts(self) -> dict[int, int]:
        """What was announced, for a snapshot."""
        return {partition: watermark for partition, watermark in self._watermarks.items() if watermark is not None}
