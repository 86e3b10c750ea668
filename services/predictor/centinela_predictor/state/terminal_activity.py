"""The records of ``terminal-activity``: blocks, and their bytes."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from centinela.errors import InvalidRecord
from centinela.features.keys import Hashes, Int64s

IDLE = (1 << 63) - 1
"""Watermark of a partition that no other one needs to wait for."""
_HEADER = struct.Struct("<4sIqQQq")
_MAGIC = b"TAB2"


class Block(NamedTuple):
    """The terminals' transactions of one committed batch of one partition.

    All activity of the partition up to ``watermark`` (event time, ms) is in this block or an earlier one. ``writer``
    and ``sequence`` name the block. ``terminals`` and ``ids`` are hashes, ``times`` ms; each of shape (n,). ``end``: of
    an ``IDLE`` partition, the offset at which it ended when all of it had been read.
    """

    watermark: int
    writer: int
    sequence: int
    terminals: Hashes
    times: Int64s
    ids: Hashes
    end: int = 0


def pack_block(block: Block) -> bytes:
    """*block* as 40 bytes and 24 per transaction, little-endian."""
    header = _HEADER.pack(_MAGIC, len(block.ids), block.watermark, block.writer, block.sequence, block.end)
    return b"".join(
        (
            header,
            block.terminals.astype("<u8").tobytes(),
            block.times.astype("<i8").tobytes(),
            block.ids.astype("<u8").tobytes(),
        )
    )


def unpack_block(value: bytes | None) -> Block:
    """The block that *value* holds.

    Raises:
        InvalidRecord: ``invalid_block``.
    """
    if value is None or len(value) < _HEADER.size:
        raise InvalidRecord("invalid_block", "shorter than a block's header")
    magic, n, watermark, writer, sequence, end = _HEADER.unpack_from(value)
    if magic != _MAGIC or len(value) != _HEADER.size + 24 * n:
        raise InvalidRecord(
            "invalid_block", f"{len(value)} bytes starting with {magic!r} are not a block of {n} transactions"
        )
    terminals, times, ids = (
        np.frombuffer(value, dtype, n, _HEADER.size + 8 * n * column)
        for column, dtype in enumerate(("<u8", "<i8", "<u8"))
    )
    return Block(
        watermark, writer, sequence, terminals.astype(np.uint64), times.astype(np.int64), ids.astype(np.uint64), end
    )
