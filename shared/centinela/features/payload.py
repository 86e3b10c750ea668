"""What a transaction says, as one integer: it tells a copy from another transaction under the same id.

The upper half stands for cardholder, terminal, amount, currency, attributes and kind, the lower for the time; 0 in a
half is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from centinela.events import PURCHASE, TransactionReceived
from centinela.features.keys import Hashes, Int64s, hash_id

UNKNOWN = 0
_HALF = np.uint64(32)
_LOWER = np.uint64(0xFFFFFFFF)
_ODD = [
    np.uint64(odd)
    for odd in (
        0x9E3779B97F4A7C15,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0xD6E8FEB86659FD93,
        0xA0761D6478BD642F,
        0xE7037ED1A0B428DB,
    )
]
_attributes = msgspec.msgpack.Encoder(order="deterministic")


def payloads_of(
    transactions: Sequence[TransactionReceived],
    users: Hashes,
    terminals: Hashes,
    times: Int64s,
    amounts: NDArray[np.float64],
    currencies: Sequence[str],
) -> Int64s:
    """The payload of each of *transactions*, shape (n,). The other arguments are its columns.

    The time of one that a gateway answered is unknown: a client may leave it out, and each attempt then gets one of its
    own.
    """
    said = (
        users * _ODD[0]
        + terminals * _ODD[1]
        + (amounts + 0.0).view(np.uint64) * _ODD[2]
        + _hashes(currencies) * _ODD[3]
    )
    for row, transaction in enumerate(transactions):
        if transaction.attributes:
            said[row] ^= np.uint64(xxhash.xxh3_64_intdigest(_attributes.encode(transaction.attributes)))
        if transaction.kind != PURCHASE:
            said[row] ^= np.uint64(hash_id(transaction.kind))
    said = _known((said ^ said >> _HALF) * _ODD[4] >> _HALF)
    when = _known(times.view(np.uint64) * _ODD[5] >> _HALF)
    when[[row for row, t in enumerate(transactions) if t.verdict is not None and t.verdict.origin == "gateway"]] = (
        UNKNOWN
    )
    return (said << _HALF | when).view(np.int64)


def contradict(first: Int64s, again: Int64s) -> NDArray[np.bool_]:
    """Whether each of two aligned payloads, shape (n,), differ in something that both know."""
    one, other = first.view(np.uint64), again.view(np.uint64)
    return _differ(one >> _HALF, other >> _HALF) | _differ(one & _LOWER, other & _LOWER)


def _differ(one: Hashes, other: Hashes) -> NDArray[np.bool_]:
    differ: NDArray[np.bool_] = (one != other) & (one != UNKNOWN) & (other != UNKNOWN)
    return differ


def _known(halves: Hashes) -> Hashes:
    return np.maximum(halves, np.uint64(1))


def _hashes(codes: Sequence[str]) -> Hashes:
    hashes = {code: hash_id(code) for code in set(codes)}
    if len(hashes) == 1:
        return np.full(len(codes), hashes[codes[0]], np.uint64)
    return np.array([hashes[code] for code in codes], np.uint64)
