"""Aggregations of the values in many windows, whichever way the windows are read."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from centinela.features.keys import Int64s

Floats = NDArray[np.float64]
_EXACT_BELOW = 2.0**62
"""Squares of whole numbers are summed as integers where their sum is certainly below this."""


class WindowValues(ABC):
    """The values of one column in n windows.

    Each result depends on nothing but what its window holds: not on the other windows, nor on how they are read.

    Attributes:
        counts: Values in each window, shape (n,).
        whole: The values are integers; else they are floats, none of them NaN.
    """

    counts: Int64s
    whole: bool

    def aggregate(self, aggregation: str, own: Floats, unit: float) -> Floats:
        """*aggregation* of each window, shape (n,), in units of which one holds *unit* of the values'."""
        with np.errstate(all="ignore"):
            match aggregation:
                case "count":
                    return self.counts.astype(np.float64)
                case "max":
                    return self.greatest() / unit
                case "min":
                    return self.least() / unit
                case "sum":
                    return self.total() / unit
                case "mean":
                    return self.total() / (unit * self.counts)
                case "std":
                    return self._std() / unit
                case "ratio_to_mean":
                    total = self.total()
                    return np.where(total != 0, own / (total / self.counts), np.nan)
                case _:
                    raise NotImplementedError(f"aggregation {aggregation!r} of a user: no code computes it")

    @abstractmethod
    def greatest(self) -> Floats:
        """The greatest of each window, NaN where it holds nothing."""

    @abstractmethod
    def least(self) -> Floats:
        """The least of each window, NaN where it holds nothing."""

    @abstractmethod
    def total(self) -> Floats:
        """The sum of each window, NaN where it holds nothing."""

    @abstractmethod
    def distinct(self) -> Floats:
        """The number of distinct values in each window."""

    @abstractmethod
    def squares_around(self, centre: Int64s) -> tuple[Int64s, Int64s]:
        """Of whole numbers: the sums of the distances from each window's *centre*, and of their squares."""

    @abstractmethod
    def squares_apart(self, mean: Floats, windows: NDArray[np.intp]) -> Floats:
        """The sums of the squared distances from *mean*, of the *windows* with these numbers."""

    def _std(self) -> Floats:
        """The sample's standard deviation in each window; NaN for fewer than two values."""
        return np.where(self.counts > 1, np.sqrt(self._squares() / (self.counts - 1)), np.nan)

    def _squares(self) -> Floats:
        """The sum of the squared distances from each window's mean."""
        mean = self.total() / self.counts
        if not self.whole:
            return self.squares_apart(mean, np.arange(len(mean)))
        centre = np.where(self.counts > 0, np.rint(mean), 0.0)
        furthest = np.maximum(self.greatest() - centre, centre - self.least())
        sums, squares = self.squares_around(centre.astype(np.int64))
        result: Floats = squares - sums.astype(np.float64) ** 2 / self.counts
        far = np.flatnonzero(furthest**2 * self.counts >= _EXACT_BELOW)
        if len(far):
            result[far] = self.squares_apart(mean[far], far)
        return result
