"""Identifiers and amounts as the integers that feature state contains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Int64s = NDArray[np.int64]

MISSING_ID = 0
"""Hash of a missing identifier."""
_hash = xxhash.xxh3_64_intdigest


def hash_id(identifier: str | None) -> int:
    """xxh3-64 of *identifier* in UTF-8; ``MISSING_ID`` for None, and never for anything else."""
    return MISSING_ID if identifier is None else _hash(identifier.encode()) or 1


def hash_ids(identifiers: Sequence[str | None]) -> Hashes:
    """``hash_id`` of each, shape (n,)."""
    if None in identifiers:
        return np.fromiter(map(hash_id, identifiers), np.uint64, len(identifiers))
    hashes = np.fromiter(map(_hash, map(str.encode, identifiers)), np.uint64, len(identifiers))  # type: ignore[arg-type]
    hashes[hashes == MISSING_ID] = 1
    return hashes


def minor_units(amounts: Iterable[float]) -> Int64s:
    """Amounts in hundredths, rounded half to even, shape (n,). Windows sum these integers, so that sums are exact."""
    array = np.asarray(amounts if isinstance(amounts, np.ndarray) else list(amounts), dtype=np.float64)
    return np.rint(array * 100.0).astype(np.int64)
