"""The one partitioner: murmur2 of the key, as the Java client, kafka-python and librdkafka's ``murmur2_random`` do
it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from kafka.partitioner.default import murmur2
from numpy.typing import NDArray

_SEED, _FACTOR = 0x9747B28C, np.uint32(0x5BD1E995)
_POSITIVE = 0x7FFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of *key* among *partitions* (> 0)."""
    return int((murmur2(key) & _POSITIVE) % partitions)


def partitions_of(keys: Sequence[bytes], partitions: int) -> NDArray[np.int64]:
    """``partition_of`` of each of many *keys*, shape (n,)."""
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    result = np.empty(len(keys), np.int64)
    for length in np.unique(lengths).tolist():
        same = np.flatnonzero(lengths == length)
        joined = b"".join(keys if len(same) == len(keys) else [keys[n] for n in same.tolist()])
        hashes = _murmur2(np.frombuffer(joined, np.uint8).reshape(len(same), length))
        result[same] = (hashes & np.uint32(_POSITIVE)).astype(np.int64) % partitions
    return result


def _murmur2(keys: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The hash of each key, a row of bytes."""
    count, length = keys.shape
    hashes = np.full(count, (_SEED ^ length) & 0xFFFFFFFF, np.uint32)
    whole = length & ~3
    for words in np.ascontiguousarray(keys[:, :whole]).view("<u4").T:
        mixed = words * _FACTOR
        mixed = (mixed ^ (mixed >> np.uint32(24))) * _FACTOR
        hashes = hashes * _FACTOR ^ mixed
    if length > whole:
        for at in range(whole, length):
            hashes = hashes ^ keys[:, at].astype(np.uint32) << np.uint32(8 * (at - whole))
        hashes = hashes * _FACTOR
    hashes = (hashes ^ hashes >> np.uint32(13)) * _FACTOR
    return hashes ^ hashes >> np.uint32(15)
