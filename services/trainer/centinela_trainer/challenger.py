"""What a candidate is worth, and its bundle: what every way of training shares."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from centinela.errors import ModelRejected
from centinela.features.layout import FeatureLayout
from centinela.model.export import ModelFacts, build_bundle
from centinela.model.scorer import Scorer
from centinela_trainer.dataset import Dataset, Floats
from centinela_trainer.evaluation import evaluate
from centinela_trainer.params import Params
from centinela_trainer.training import Candidate

FORWARD = "forward_"
_FORWARD_METRICS = ("average_precision", "roc_auc")


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, as its bundle says it."""

    model_name: str
    request_id: str
    dataset_digest: str
    code_commit: str
    created_at: datetime


def measure(dataset: Dataset, candidate: Candidate, params: Params) -> dict[str, float]:
    """All metrics on the test rows; ``forward_*``: those of the model trained before them."""
    test = candidate.split.test

    def metrics(scores: Floats) -> dict[str, float]:
        return evaluate(
            dataset.is_fraud[test], scores, dataset.cards[test], dataset.times_us[test], threshold=candidate.thresholds.decline,
            alert_budget=params.threshold.alert_budget, cards_per_day=params.evaluate.cards_per_day, start_us=candidate.split.start_us)

    forward = metrics(candidate.forward_scores)
    return metrics(candidate.test_scores) | {FORWARD + name: forward[name] for name in _FORWARD_METRICS if name in forward}


def write_bundle(dataset: Dataset, layout: FeatureLayout, recent: Floats, candidate: Candidate, params: Params, metrics: dict[str, float],
                 origin: Origin, dest: Path) -> None:
    """Build the bundle of *candidate* in the new folder *dest*.

    Args:
        recent: Rows that no model was trained on, in the layout's columns; where there are none, the test rows stand for them.
    """
    names = candidate.names
    fitted = dataset.columns(names) if params.train.refit else dataset.columns(names, candidate.split.train)
    columns = [layout.names.index(name) for name in names]
    rows = np.ascontiguousarray(recent[:, columns]) if len(recent) else dataset.columns(names, candidate.split.test)
    build_bundle(candidate.estimator, fitted, rows, ModelFacts(
        model_name=origin.model_name, model_kind=candidate.kind, layout_id=layout.id, feature_names=names,
        threshold=candidate.thresholds.decline, review_threshold=candidate.thresholds.review,
        average_precision=metrics.get("average_precision"), dataset_digest=origin.dataset_digest, request_id=origin.request_id,
        code_commit=origin.code_commit, created_at=origin.created_at, metrics=metrics,
    ), dest)


def loads(bundle: Path, layout: FeatureLayout) -> tuple[bool, str]:
    """Load *bundle* as a predictor would: whether that goes well, and what goes wrong."""
    try:
        Scorer.load(bundle, layout=layout)
    except ModelRejected as rejected:
        return False, str(rejected)
    return True, ""
