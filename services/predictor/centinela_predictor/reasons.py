"""Why a transaction stands out, in a constant format [P]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from centinela.model.bundle import Manifest

MAX_REASONS = 3


class Explainer:
    """Names the features in which a row lies outside the bulk of a model's reference data.

    It tells how the row differs from what the model was trained on; it is no attribution of the score.

    Args:
        edges: Inner quantile edges per feature, ascending.
        counts: Reference counts per feature: one per bin between the edges (``len(edges) + 1``), missing values last.
    """

    def __init__(self, edges: Mapping[str, Sequence[float]], counts: Mapping[str, Sequence[int]]) -> None:
        self._bounds: list[tuple[str, float, float, float, int, int]] = []
        for name, inner in edges.items():
            present = list(counts[name])[: len(inner) + 1]
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
            Fewer, or none, where the row lies within the reference; features of the model that *names* lacks are left out.
        """
        row = dict(zip(names, values.tolist(), strict=True))
        found: list[tuple[float, str]] = []
        for name, low, high, scale, below_top, above_bottom in self._bounds:
            value = row.get(name, math.nan)
            if value > high:
                found.append(((value - high) / scale, f"{name}={value:.2f} above {below_top}% of reference"))
            elif value < low:
                found.append(((low - value) / scale, f"{name}={value:.2f} below {above_bottom}% of reference"))
        found.sort(key=lambda item: -item[0])
        return tuple(text for _, text in found[:MAX_REASONS])


def explainer_of(manifest: Manifest) -> Explainer:
    """The explainer on the reference data of a bundle."""
    reference = manifest.reference
    return Explainer(reference.edges, reference.counts)
