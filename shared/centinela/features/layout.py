"""Which features there are, in which order, and how a served vector looks as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

TRANSACTION_FEATURES = ("amount", "is_night", "is_weekend")
USER_FEATURES = (
    "user_count_1d", "user_mean_1d", "user_count_7d", "user_mean_7d", "user_count_30d", "user_mean_30d", "user_max_30d",
    "user_seconds_since_last",
)
TERMINAL_FEATURES = (
    "terminal_count_1d", "terminal_risk_1d", "terminal_count_7d", "terminal_risk_7d", "terminal_count_30d", "terminal_risk_30d",
)
BASE_FEATURES = TRANSACTION_FEATURES + USER_FEATURES + TERMINAL_FEATURES
VERSION = "v1"
_ROW = np.dtype("<f8")


@dataclass(frozen=True)
class FeatureLayout:
    """The columns of a feature matrix: the base features, then the transaction's raw *attributes*.

    Raises:
        ValueError: An attribute is empty, repeats, holds a comma or bears a base feature's name.
    """

    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.attributes)) != len(self.attributes):
            raise ValueError(f"an attribute repeats in {self.attributes}")
        for name in self.attributes:
            if not name or "," in name or name in BASE_FEATURES:
                raise ValueError(f"{name!r} cannot name an attribute: it is empty, holds a comma or names a base feature")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return BASE_FEATURES + self.attributes

    @cached_property
    def id(self) -> str:
        """The layout as text: the ``feature_set`` of events."""
        return f"{VERSION}:{','.join(self.attributes)}"

    @classmethod
    def parse(cls, text: str) -> FeatureLayout:
        """The layout whose ``id`` is *text*.

        Raises:
            ValueError: Another version, or not a layout.
        """
        version, colon, attributes = text.partition(":")
        if version != VERSION or not colon:
            raise ValueError(f"feature set {text[:40]!r} is not of version {VERSION}")
        return cls(tuple(attributes.split(",")) if attributes else ())


def pack_rows(matrix: NDArray[np.float64]) -> list[bytes]:
    """Each row of *matrix*, shape (n, k), as 8 k bytes: float64, little-endian."""
    width = matrix.shape[1] * _ROW.itemsize
    buffer = np.ascontiguousarray(matrix, dtype=_ROW).tobytes()
    return [buffer[at:at + width] for at in range(0, len(buffer), width)] if width else [b""] * len(matrix)


def unpack_rows(rows: Sequence[bytes], width: int) -> NDArray[np.float64]:
    """The matrix, shape (len(rows), width), that ``pack_rows`` packed.

    Raises:
        ValueError: A row has another length than *width* values.
    """
    for row in rows:
        if len(row) != width * _ROW.itemsize:
            raise ValueError(f"a vector of {len(row)} bytes does not hold {width} features of {_ROW.itemsize} bytes")
    return np.frombuffer(b"".join(rows), dtype=_ROW).astype(np.float64, copy=True).reshape(len(rows), width)
