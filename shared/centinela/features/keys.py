"""Identifiers and instants as the integers that feature state holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import numpy as np
import xxhash
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Int64s = NDArray[np.int64]

NOBODY = 0
"""Hash of a missing identifier."""
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_hash = xxhash.xxh3_64_intdigest


def hash_id(identifier: str | None) -> int:
    """xxh3-64 of *identifier* in UTF-8; ``NOBODY`` for None, and never for anything else."""
    return NOBODY if identifier is None else _hash(identifier.encode()) or 1


def hash_ids(identifiers: Sequence[str | None]) -> Hashes:
    """``hash_id`` of each, shape (n,)."""
    if None in identifiers:
        return np.fromiter(map(hash_id, identifiers), np.uint64, len(identifiers))
    hashes = np.fromiter(map(_hash, map(str.encode, identifiers)), np.uint64, len(identifiers))  # type: ignore[arg-type]
    hashes[hashes == NOBODY] = 1
    return hashes


def epoch_ms(instants: Iterable[datetime]) -> Int64s:
    """Milliseconds since 1970 of aware *instants*, rounded down, shape (n,).

    A double holds present-day seconds to 2.4e-7, so that half a microsecond decides the millisecond rightly.
    """
    seconds = np.array([instant.timestamp() for instant in instants], dtype=np.float64)
    return np.floor(seconds * 1000.0 + 0.0005).astype(np.int64)


def minor_units(amounts: Iterable[float]) -> Int64s:
    """Amounts in hundredths, rounded half to even, shape (n,). Windows sum these integers, so that sums are exact."""
    array = np.asarray(amounts if isinstance(amounts, np.ndarray) else list(amounts), dtype=np.float64)
    return np.rint(array * 100.0).astype(np.int64)
