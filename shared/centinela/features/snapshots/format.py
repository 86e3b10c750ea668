"""Feature state as bytes: named arrays and a few facts, with a format version and a checksum."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

_MAGIC = b"CNTSNAP1"
_LENGTH = 8
_NAME = re.compile(r"^(\d{19})\.snapshot$")

Arrays = dict[str, NDArray[np.generic]]


class SnapshotDamaged(ValueError):
    """The bytes are not a complete snapshot of this format."""


class _Array(msgspec.Struct, array_like=True):
    name: str
    dtype: str
    shape: tuple[int, ...]


class _Header(msgspec.Struct):
    kind: str
    facts: dict[str, int]
    arrays: list[_Array]


def pack(kind: str, facts: Mapping[str, int], arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """A snapshot of *arrays*. *kind* names the state with its version (``users:1``)."""
    stored = {
        name: np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        for name, array in arrays.items()
    }
    header = msgspec.msgpack.encode(
        _Header(kind, dict(facts), [_Array(n, a.dtype.str, a.shape) for n, a in stored.items()])
    )
    body = b"".join([_MAGIC, len(header).to_bytes(_LENGTH, "little"), header, *(a.tobytes() for a in stored.values())])
    return body + xxhash.xxh3_128_digest(body)


def unpack(kind: str, data: bytes) -> tuple[dict[str, int], Arrays]:
    """Facts and arrays of ``pack``.

    Raises:
        SnapshotDamaged: Another format or kind, truncated, or changed.
    """
    body, checksum = data[:-16], data[-16:]
    if not body.startswith(_MAGIC):
        raise SnapshotDamaged("not a snapshot of this format")
    if xxhash.xxh3_128_digest(body) != checksum:
        raise SnapshotDamaged("the checksum does not match: the file is cut short or changed")
    at = len(_MAGIC) + _LENGTH
    end = at + int.from_bytes(body[len(_MAGIC) : at], "little")
    try:
        header = msgspec.msgpack.decode(body[at:end], type=_Header)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SnapshotDamaged(f"its header cannot be read: {error}") from error
    if header.kind != kind:
        raise SnapshotDamaged(f"a snapshot of {header.kind!r}, not of {kind!r}")
    arrays: Arrays = {}
    for item in header.arrays:
        try:
            dtype, count = np.dtype(item.dtype), math.prod(item.shape)
            arrays[item.name] = np.frombuffer(body, dtype, count, end).reshape(item.shape)
        except (TypeError, ValueError, OverflowError) as error:
            raise SnapshotDamaged(f"its array {item.name!r} cannot be read: {error}") from error
        end += count * dtype.itemsize
    return header.facts, arrays


def name_of(position: int) -> str:
    """The file name of the snapshot at *position*."""
    return f"{position:019d}.snapshot"


def position_of(name: str) -> int | None:
    """The position in *name*; None if it is not the name of a snapshot."""
    match = _NAME.match(name)
    return int(match[1]) if match else None
