"""What a candidate is worth, and its bundle: what every way of training shares."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from centinela.errors import ModelRejected
from centinela.features.layout import FeatureLayout
from centinela.model.export import ModelFacts, build_bundle
from centinela.model.scorer import Scorer
from centinela_trainer.params import Params
from centinela_trainer.training import plots
from centinela_trainer.training.dataset import Bools, Dataset, Floats, Microseconds, Objects
from centinela_trainer.training.environment import environment
from centinela_trainer.training.evaluation import evaluate
from centinela_trainer.training.fit import Candidate

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


@dataclass(frozen=True)
class Scored:
    """The test rows, shape (n,) each, and their scores: out of sample, and by the model trained before them
    (``forward``)."""

    is_fraud: Bools
    cards: Objects
    times_us: Microseconds
    scores: Floats
    forward: Floats
    threshold: float
    start_us: int

    @classmethod
    def of(cls, dataset: Dataset, candidate: Candidate) -> Scored:
        """What *candidate* scored of *dataset*."""
        test = candidate.split.test
        return cls(
            dataset.is_fraud[test],
            dataset.cards[test],
            dataset.times_us[test],
            candidate.test_scores,
            candidate.forward_scores,
            candidate.thresholds.decline,
            candidate.split.start_us,
        )


def measure(rows: Scored, params: Params) -> dict[str, float]:
    """All metrics on the test rows; ``forward_*``: those of the model trained before them."""

    def metrics(scores: Floats) -> dict[str, float]:
        return evaluate(
            rows.is_fraud,
            scores,
            rows.cards,
            rows.times_us,
            threshold=rows.threshold,
            alert_budget=params.threshold.alert_budget,
            cards_per_day=params.evaluate.cards_per_day,
            start_us=rows.start_us,
        )

    forward = metrics(rows.forward)
    return metrics(rows.scores) | {FORWARD + name: forward[name] for name in _FORWARD_METRICS if name in forward}


def write_artifacts(rows: Scored, folder: Path, champion: Floats | None = None) -> None:
    """The pictures of a run and its ``environment.json``, into the new folder *folder*; with *champion*'s scores of the
    same rows."""
    folder.mkdir()
    plots.confusion_matrix(rows.is_fraud, rows.scores, rows.threshold, folder / "confusion_matrix.png")
    if rows.is_fraud.any():
        curves = {"challenger": rows.scores, "challenger, trained before": rows.forward}
        if champion is not None:
            curves["champion"] = champion
        plots.precision_recall(rows.is_fraud, curves, folder / "pr_curve.png")
    (folder / "environment.json").write_text(json.dumps(environment(), indent=1))


def write_bundle(
    dataset: Dataset,
    layout: FeatureLayout,
    recent: Floats,
    candidate: Candidate,
    params: Params,
    metrics: dict[str, float],
    origin: Origin,
    dest: Path,
) -> None:
    """Build the bundle of *candidate* in the new folder *dest*.

    Args:
        recent: Rows that no model was trained on, in the layout's columns; where there are none, the test rows are used
            instead.
    """
    names = candidate.names
    fitted = dataset.columns(names) if params.train.refit else dataset.columns(names, candidate.split.train)
    columns = [layout.names.index(name) for name in names]
    rows = np.ascontiguousarray(recent[:, columns]) if len(recent) else dataset.columns(names, candidate.split.test)
    build_bundle(
        candidate.estimator,
        fitted,
        rows,
        ModelFacts(
            model_name=origin.model_name,
            model_kind=candidate.kind,
            layout_id=layout.id,
            feature_names=names,
            threshold=candidate.thresholds.decline,
            review_threshold=candidate.thresholds.review,
            average_precision=metrics.get("average_precision"),
            dataset_digest=origin.dataset_digest,
            request_id=origin.request_id,
            code_commit=origin.code_commit,
            created_at=origin.created_at,
            metrics=metrics,
        ),
        dest,
    )


def loads(bundle: Path, layout: FeatureLayout) -> tuple[bool, str]:
    """Load *bundle* as a predictor would: whether that goes well, and what goes wrong."""
    try:
        Scorer.load(bundle, layout=layout)
    except ModelRejected as rejected:
        return False, str(rejected)
    return True, ""
