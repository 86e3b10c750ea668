"""Stand-ins for a loaded bundle, for tests of whatever scores."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from centinela.features.layout import FeatureLayout
from numpy.typing import NDArray

from centinela_predictor.model_slot import ServedModel
from centinela_predictor.reasons import explainer_of

Rule = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def by_amount(amounts: NDArray[np.float64]) -> NDArray[np.float64]:
    """A thousandth of the amount: 500 scores .5."""
    return amounts / 1_000.0


class FakeScorer:
    """Scores by *rule* of the amount; declines from .8 and reviews from .5 on.

    Attributes:
        rows: Rows scored so far.
    """

    def __init__(self, rule: Rule = by_amount, threshold: float = 0.8, review_threshold: float = 0.5) -> None:
        self._rule = rule
        self.rows = 0
        self.manifest: Any = SimpleNamespace(
            model_name="FraudDetector", model_kind="fake", backend="fake", feature_names=("amount",), layout_id="v1:", threshold=threshold,
            review_threshold=review_threshold, dataset_digest="md5:0", request_id=None, created_at="2026-03-01T00:00:00Z",
            reference=SimpleNamespace(edges={"amount": [10.0 * n for n in range(1, 10)]}, counts={"amount": [10] * 10 + [0]}),
        )

    def score(self, matrix: NDArray[np.float64], layout: FeatureLayout) -> NDArray[np.float64]:
        """The rule's answer per row."""
        self.rows += len(matrix)
        return self._rule(matrix[:, layout.names.index("amount")])


def served(version: str, scorer: FakeScorer | None = None) -> ServedModel:
    """A fake in service; reasons come from amounts of 10 to 100 in ten bins."""
    scorer = scorer or FakeScorer()
    return ServedModel(version, scorer, explainer_of(scorer.manifest))
