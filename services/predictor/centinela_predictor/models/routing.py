"""Which of the two models scores a transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SPACE = float(2**64)


class Router:
    """Splits keys between champion and challenger by a keyed hash, the same in every process and after every restart.

    Args:
        salt: Names the experiment; another salt gives another split. At most 64 bytes.
        challenger_share: Share of keys that the challenger scores, in [0, 1].

    Raises:
        ValueError: A share outside [0, 1], or a salt over 64 bytes.
    """

    def __init__(self, salt: str, challenger_share: float) -> None:
        self._salt = salt.encode()
        if not 0.0 <= challenger_share <= 1.0:
            raise ValueError(f"challenger_share is {challenger_share}; it must lie in [0, 1]")
        if len(self._salt) > hashlib.blake2b.MAX_KEY_SIZE:
            raise ValueError(f"the salt has {len(self._salt)} bytes; at most {hashlib.blake2b.MAX_KEY_SIZE}")
        self.challenger_share = challenger_share

    def position(self, key: str) -> float:
        """Where *key* (a user id, else a transaction id) falls in [0, 1]; uniform over keys."""
        digest = hashlib.blake2b(key.encode(), digest_size=8, key=self._salt).digest()
        return int.from_bytes(digest, "big") / _SPACE

    def goes_to_challenger(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Whether the challenger scores each of *keys*, shape (n,)."""
        if self.challenger_share <= 0.0:
            return np.zeros(len(keys), dtype=np.bool_)
        if self.challenger_share >= 1.0:
            return np.ones(len(keys), dtype=np.bool_)
        return np.fromiter(
            (self.position(key) < self.challenger_share for key in keys), dtype=np.bool_, count=len(keys)
        )
