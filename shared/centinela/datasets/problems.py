"""Why rows of a batch are no transactions: the first reason of each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


class Problems:
    """The first problem of each row. ``bad``: the rows that have one."""

    def __init__(self, count: int) -> None:
        self.bad = np.zeros(count, dtype=bool)
        self.first: dict[int, tuple[str, str]] = {}

    def add(self, mask: Mask, reason: str, detail: str) -> None:
        """Rows of *mask* have this problem, unless they have one already."""
        for index in np.flatnonzero(mask & ~self.bad):
            self.first[int(index)] = (reason, detail)
        self.bad |= mask

    def invalid(self, mask: Mask, detail: str) -> None:
        """Rows of *mask* have a field that is not usable."""
        self.add(mask, "invalid_field", detail)
