"""Stand-ins for a loaded bundle and a small real one, for tests of whatever scores."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from centinela.features.layout import FeatureLayout
from centinela.model.bundle import Manifest, Parity, Reference
from centinela_predictor.models.explanations import explainer_of
from centinela_predictor.models.slot import ServedModel

Rule = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def by_amount(amounts: NDArray[np.float64]) -> NDArray[np.float64]:
    """A thousandth of the amount: 500 scores .5."""
    return amounts / 1_000.0


def _manifest(threshold: float, review_threshold: float) -> Manifest:
    """A model on the amount alone, whose reference is spread evenly from 0 to 100."""
    reference = Reference(
        bins=10,
        rows=100,
        edges=(tuple(10.0 * n for n in range(1, 10)),),
        counts=((10,) * 10 + (0,),),
        recent_rows=100,
        score_counts=(100,) + (0,) * 49,
        alert_rate=0.0,
        review_rate=0.0,
    )
    return Manifest(
        model_name="FraudDetector",
        model_kind="fake",
        layout_id="v1:",
        feature_names=("amount",),
        backend="sklearn",
        threshold=threshold,
        review_threshold=review_threshold,
        files={},
        reference=reference,
        dataset_digest="md5:0",
        request_id="request-0",
        code_commit="0",
        parity=Parity(rows=0, missing_rows=0, edge_rows=0, tolerance=0.0, attempts=()),
        created_at=datetime(2026, 3, 1, tzinfo=UTC),
        versions={},
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


def small_bundle(dest: Path, layout: FeatureLayout, *, version: str = "1", depth: int = 2) -> Path:
    """A real bundle in *dest*: a small model that declines where ``v1`` is above about 1.5, whatever the rest."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    from centinela.model.export import ModelFacts, build_bundle

    names = ("amount", "user_count_1d", "v1", "v2")
    random = np.random.default_rng(7)
    rows = np.column_stack(
        [random.gamma(2, 50, 2_000), random.integers(1, 5, 2_000), random.normal(size=2_000), random.normal(size=2_000)]
    )
    model = HistGradientBoostingClassifier(
        max_iter=5, max_depth=depth, learning_rate=0.5, early_stopping=False, l2_regularization=1.0
    )
    model.fit(rows[:1_500], (rows[:1_500, 2] > 1.5).astype(int))
    build_bundle(
        model,
        rows[:1_500],
        rows[1_500:],
        ModelFacts(
            model_name="FraudDetector",
            model_kind="hgb",
            layout_id=layout.id,
            feature_names=names,
            threshold=0.5,
            review_threshold=0.2,
            average_precision=0.9,
            dataset_digest="md5:0",
            request_id=f"request-{version}",
            code_commit="0",
            created_at=datetime(2026, 3, 1, tzinfo=UTC),
        ),
        dest,
    )
    return dest
