"""The features and their order, and a served vector as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from centinela.features.spec import AMOUNT, BASE_TERMINAL, BASE_USER, TERMINAL, Feature, parse_feature

TRANSACTION_FEATURES = ("amount", "is_night", "is_weekend")
USER_FEATURES = tuple(feature.name for feature in BASE_USER)
TERMINAL_FEATURES = tuple(feature.name for feature in BASE_TERMINAL)
BASE_FEATURES = TRANSACTION_FEATURES + USER_FEATURES + TERMINAL_FEATURES
VERSION = "v1"
_WITH_EXTRA = f"{VERSION}+"
_ROW = np.dtype("<f8")


@dataclass(frozen=True)
class FeatureLayout:
    """The columns of a feature matrix: base features, *extra* features (users' first), then the transaction's raw
    *attributes*.

    Raises:
        ValueError: A name is empty, repeated or contains a comma; an extra feature uses an unknown column.
    """

    attributes: tuple[str, ...] = ()
    extra: tuple[Feature, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.attributes)) != len(self.attributes):
            raise ValueError(f"an attribute repeats in {self.attributes}")
        for name in self.attributes:
            if not name or "," in name or name in BASE_FEATURES:
                raise ValueError(
                    f"{name!r} cannot name an attribute: it is empty, contains a comma or names a base feature"
                )
        object.__setattr__(self, "extra", tuple(sorted(self.extra, key=lambda feature: feature.entity == "terminal")))
        taken = {*BASE_FEATURES, *self.attributes}
        for feature in self.extra:
            if feature.name in taken:
                raise ValueError(f"feature {feature.name!r} has the name of another column")
            taken.add(feature.name)
            if feature.column not in (AMOUNT, TERMINAL, *self.attributes):
                raise ValueError(
                    f"feature {feature.name!r}: column {feature.column!r} is neither {AMOUNT}, {TERMINAL} nor an"
                    " attribute (setting `attributes`)"
                )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return BASE_FEATURES + tuple(feature.name for feature in self.extra) + self.attributes

    @cached_property
    def user_extra(self) -> tuple[Feature, ...]:
        """The extra features of users, in order."""
        return tuple(feature for feature in self.extra if feature.entity == "user")

    @cached_property
    def terminal_extra(self) -> tuple[Feature, ...]:
        """The extra features of terminals, in order."""
        return tuple(feature for feature in self.extra if feature.entity == "terminal")

    @cached_property
    def stored(self) -> tuple[str, ...]:
        """Columns other than the amount that user state keeps of each transaction, sorted."""
        return tuple(sorted({feature.column for feature in self.user_extra} - {AMOUNT}))

    @cached_property
    def id(self) -> str:
        """The layout as text: the ``feature_set`` of events. ``v1:v1,v2``, or with extra features
        ``v1+name=...;name=...:v1,v2``."""
        prefix = _WITH_EXTRA + ";".join(feature.text for feature in self.extra) if self.extra else VERSION
        return f"{prefix}:{','.join(self.attributes)}"

    @classmethod
    def parse(cls, text: str) -> FeatureLayout:
        """The layout whose ``id`` is *text*.

        Raises:
            ValueError: Another version, or not a layout.
        """
        return _parse(text)


@lru_cache(maxsize=64)
def _parse(text: str) -> FeatureLayout:
    prefix, colon, attributes = text.partition(":")
    extra = prefix.removeprefix(_WITH_EXTRA) if prefix.startswith(_WITH_EXTRA) else ""
    if not colon or (prefix != VERSION and not extra):
        raise ValueError(f"feature set {text[:40]!r} is not of version {VERSION}")
    features = tuple(parse_feature(one) for one in extra.split(";")) if extra else ()
    return FeatureLayout(tuple(attributes.split(",")) if attributes else (), features)


BASE_LAYOUT = FeatureLayout()
"""The base features alone."""


def pack_rows(matrix: NDArray[np.float64]) -> list[bytes]:
    """Each row of *matrix*, shape (n, k), as 8 k bytes: float64, little-endian."""
    width = matrix.shape[1] * _ROW.itemsize
    buffer = np.ascontiguousarray(matrix, dtype=_ROW).tobytes()
    return [buffer[at : at + width] for at in range(0, len(buffer), width)] if width else [b""] * len(matrix)


def unpack_rows(rows: Sequence[bytes], width: int) -> NDArray[np.float64]:
    """The matrix, shape (len(rows), width), that ``pack_rows`` packed.

    Raises:
        ValueError: A row has another length than *width* values.
    """
    for row in rows:
        if len(row) != width * _ROW.itemsize:
            raise ValueError(f"a vector of {len(row)} bytes does not contain {width} features of {_ROW.itemsize} bytes")
    return np.frombuffer(b"".join(rows), dtype=_ROW).astype(np.float64, copy=True).reshape(len(rows), width)
