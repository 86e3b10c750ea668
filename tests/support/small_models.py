"""Small models of each kind, and the rows they are trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from centinela.model.export import ModelFacts

NAMES = ("amount", "count", "risk", "v1")
FACTS = ModelFacts(
    model_name="FraudDetector",
    model_kind="hgb",
    layout_id="v1:v1",
    feature_names=NAMES,
    threshold=0.5,
    review_threshold=0.2,
    average_precision=0.8,
    dataset_digest="d" * 32,
    request_id="r-1",
    code_commit="c" * 40,
    created_at=datetime(2026, 3, 1, tzinfo=UTC),
    metrics={"average_precision": 0.8},
)


@dataclass(frozen=True)
class Layout:
    id: str
    names: tuple[str, ...]


LAYOUT = Layout("v1:v1", ("v1", "unused", *NAMES[:3]))


def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(count, len(NAMES)))
    matrix[:, 0] = np.round(np.exp(2 * matrix[:, 0]) * 50, 2)
    truth = matrix[:, 0] / 500 + matrix[:, 1] + random.normal(scale=0.5, size=count) > 1.5
    matrix[random.random(matrix.shape) < 0.05] = np.nan
    return matrix, truth.astype(int)


TRAIN, TRUTH = rows(3_000, 1)
RECENT, _ = rows(2_000, 2)

KINDS: dict[str, Callable[[], Any]] = {
    "hgb": lambda: HistGradientBoostingClassifier(
        max_iter=15, l2_regularization=1.0, early_stopping=False, random_state=0
    ),
    "forest": lambda: RandomForestClassifier(20, max_depth=8, random_state=0),
    "imputed forest": lambda: make_pipeline(
        SimpleImputer(strategy="median"), RandomForestClassifier(20, max_depth=8, random_state=0)
    ),
    "flagged forest": lambda: make_pipeline(
        SimpleImputer(add_indicator=True), RandomForestClassifier(20, max_depth=8, random_state=0)
    ),
    "logistic": lambda: make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression()),
    "flagged logistic": lambda: make_pipeline(
        SimpleImputer(add_indicator=True), StandardScaler(), LogisticRegression()
    ),
}


@cache
def fitted(kind: str) -> Any:
    """The estimator of *kind*, fitted once."""
    return KINDS[kind]().fit(TRAIN, TRUTH)
