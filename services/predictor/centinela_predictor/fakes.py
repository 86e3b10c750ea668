"""Stand-ins for a loaded bundle, for tests of whatever scores."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from centinela.features.layout import FeatureLayout
from centinela.model.bundle import Manifest, Parity, Reference
from centinela_predictor.model_slot import ServedModel
from centinela_predictor.reasons import explainer_of

Rule = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def by_amount(amounts: NDArray[np.float64]) -> NDArray[np.float64]:
    """A thousandth of the amount: 500 scores .5."""
    return amounts / 1_000.0


def _manifest(threshold: float, review_threshold: float) -> Manifest:
    """A model on the amount alone, whose reference is spread evenly from 0 to 100."""
    reference = Reference(bins=10, rows=100, edges=(tuple(10.0 * n for n in range(1, 10)),), counts=((10,) * 10 + (0,),), recent_rows=100,
                          score_counts=(100,) + (0,) * 49, alert_rate=0.0, review_rate=0.0)
    return Manifest(
        model_name="FraudDetector", model_kind="fake", layout_id="v1:", feature_names=("amount",), backend="sklearn", threshold=threshold,
        review_threshold=review_threshold, files={}, reference=reference, dataset_digest="md5:0", request_id="request-0", code_commit="0",
        parity=Parity(rows=0, missing_rows=0, edge_rows=0, tolerance=0.0, attempts=()), created_at=datetime(2026, 3, 1, tzinfo=UTC), versions={},
    )


class FakeScorer:
    """Scores by *rule* of the amount; declines from .8 and reviews from .5 on.

    Attributes:
        rows: Rows scored so far.
    """

    def __init__(self, rule: Rule = by_amount, threshold: float = 0.8, review_threshold: float = 0.5) -> None:
        self._rule = rule
        self.rows = 0
        self.manifest = _manifest(threshold, review_threshold)

    def score(self, matrix: NDArray[np.float64], layout: FeatureLayout) -> NDArray[np.float64]:
        """The rule's answer per row."""
        self.rows += len(matrix)
        return self._rule(matrix[:, layout.names.index("amount")])


def served(version: str, scorer: FakeScorer | None = None) -> ServedModel:
    """A fake in service; reasons come from amounts of 10 to 100 in ten bins."""
    scorer = scorer or FakeScorer()
    return ServedModel(version, scorer, explainer_of(scorer.manifest))
