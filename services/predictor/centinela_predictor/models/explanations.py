"""Why a transaction stands out, in a constant format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from centinela.model.bundle import Manifest

MAX_REASONS = 3
USUAL_PERCENT = 75
"""A tail is worth naming where at least this much of the reference lies on its other side."""


class Explainer:
    """Names the features in which a row lies outside the bulk of a model's reference data.

    It says how the row differs from what the model was trained on; it does not attribute the score.

    Args:
        names: The model's features.
        edges: Inner bin edges of each, ascending; bin *i* is ``edges[i - 1] <= x < edges[i]``.
        counts: Reference rows per bin of each; counts after the first ``len(edges) + 1`` are ignored.
    """

    def __init__(self, names: Sequence[str], edges: Sequence[Sequence[float]], counts: Sequence[Sequence[int]]) -> None:
        self._bounds: list[tuple[str, float, float, float, int, int]] = []
        for name, inner, rows in zip(names, edges, counts, strict=True):
            present = rows[: len(inner) + 1]
            if not inner or not sum(present):
                continue
            low, high = float(inner[0]), float(inner[-1])
            scale = (high - low) or max(abs(high), 1.0)
            below_top = math.floor(100 * (1 - present[-1] / sum(present)))
            above_bottom = math.floor(100 * (1 - present[0] / sum(present)))
            self._bounds.append((name, low, high, scale, below_top, above_bottom))

    def explain(self, values: NDArray[np.float64], names: Sequence[str]) -> tuple[str, ...]:
        """Up to three reasons for one row, the most extreme first, such as ``amount=912.00 above 90% of reference``.

        Args:
            values: The row, shape (len(names),).
            names: Feature of each value.

        Returns:
            Fewer, or none, where the row lies within the reference; features of the model that *names* lacks are left
            out.
        """
        row = dict(zip(names, values.tolist(), strict=True))
        reasons: list[tuple[float, str]] = []
        for name, low, high, scale, below_top, above_bottom in self._bounds:
            value = row.get(name, math.nan)
            if value >= high and below_top >= USUAL_PERCENT:
                reasons.append(((value - high) / scale, f"{name}={value:.2f} above {below_top}% of reference"))
            elif value < low and above_bottom >= USUAL_PERCENT:
                reasons.append(((low - value) / scale, f"{name}={value:.2f} below {above_bottom}% of reference"))
        reasons.sort(key=lambda item: -item[0])
        return tuple(text for _, text in reasons[:MAX_REASONS])


def explainer_of(manifest: Manifest) -> Explainer:
    """The explainer on the reference data of a bundle."""
    reference = manifest.reference
    return Explainer(manifest.feature_names, reference.edges, reference.counts)
