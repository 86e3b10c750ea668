"""The estimators by kind, as ``params.yaml`` describes them: deterministic, and fit for rows with missing values."""

from __future__ import annotations

from typing import Any, Protocol, assert_never

from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from centinela_trainer.params import HgbParams, LrParams, ModelKind, Params, RfParams


class Classifier(Protocol):
    """What training needs of an estimator."""

    def fit(self, matrix: NDArray[Any], is_fraud: NDArray[Any]) -> Any:
        """Learn from rows, shape (n, features), and labels, shape (n,)."""

    def predict_proba(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """Probabilities, shape (n, 2): genuine, fraud."""


def build_estimator(kind: ModelKind, params: Params) -> Classifier:
    """An unfitted classifier of *kind*."""
    match kind:
        case "hgb":
            return _gradient_boosting(params.train.hgb, params.seed)
        case "rf":
            return _forest(params.train.rf, params.seed)
        case "lr":
            return _regression(params.train.lr, params.seed)
        case _:
            assert_never(kind)


def _gradient_boosting(hgb: HgbParams, seed: int) -> Classifier:
    estimator: Classifier = HistGradientBoostingClassifier(
        max_iter=hgb.max_iter,
        learning_rate=hgb.learning_rate,
        max_leaf_nodes=hgb.max_leaf_nodes,
        max_depth=hgb.max_depth,
        min_samples_leaf=hgb.min_samples_leaf,
        l2_regularization=hgb.l2_regularization,
        class_weight=hgb.class_weight,
        early_stopping=False,
        random_state=seed,
    )
    return estimator


def _forest(rf: RfParams, seed: int) -> Classifier:
    model = RandomForestClassifier(
        n_estimators=rf.n_estimators,
        max_depth=rf.max_depth,
        min_samples_split=rf.min_samples_split,
        min_samples_leaf=rf.min_samples_leaf,
        max_features=rf.max_features,
        max_samples=rf.max_samples,
        class_weight=rf.class_weight,
        n_jobs=rf.n_jobs,
        random_state=seed,
    )
    estimator: Classifier = Pipeline([_imputer(), ("model", model)])
    return estimator


def _regression(lr: LrParams, seed: int) -> Classifier:
    model = LogisticRegression(C=lr.C, max_iter=lr.max_iter, class_weight=lr.class_weight, random_state=seed)
    estimator: Classifier = Pipeline([_imputer(), ("scale", StandardScaler()), ("model", model)])
    return estimator


def _imputer() -> tuple[str, SimpleImputer]:
    return "impute", SimpleImputer(strategy="median", keep_empty_features=True)
