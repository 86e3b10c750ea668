"""The stages of ``dvc.yaml``: files in, files out, by the functions that the trainer service uses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from centinela.clock import Clock
from centinela.errors import CentinelaError
from centinela.features.configured import with_features
from centinela.features.layout import FeatureLayout
from centinela_trainer.params import Params
from centinela_trainer.pipeline import report as report
from centinela_trainer.pipeline.data import History, load_history, newest, training_set
from centinela_trainer.snapshots.format import folder_digest, read_folder, write_folder
from centinela_trainer.training.candidate_bundle import Origin, Scored, loads, measure, write_bundle
from centinela_trainer.training.fit import train as train_candidate
from centinela_trainer.training.gate import Evidence, GateVerdict, decide

_log = structlog.get_logger(__name__)
REQUEST = "pipeline"
FEATURES_FILE = Path("features.yaml")
UNREGISTERED = "unregistered"
"""The code commit of a bundle that is not registered: ``dvc.lock`` says what made it."""


class Paths(NamedTuple):
    """The pipeline's files, as ``dvc.yaml`` names them, from the checkout's root."""

    transactions: Path = Path("data/transactions.parquet")
    labels: Path = Path("data/labels.parquet")
    training_set: Path = Path("data/training-set")
    feature_set: Path = Path("data/feature-set.txt")
    model: Path = Path("data/model")
    scores: Path = Path("data/test-scores.parquet")
    candidate: Path = Path("data/candidate.json")
    metrics: Path = Path("metrics.json")
    score_plot: Path = Path("scores.json")
    curve_plot: Path = Path("plots/pr_curve.json")
    confusion_plot: Path = Path("plots/confusion_matrix.json")


PATHS = Paths()


def preprocess(params: Params, clock: Clock) -> None:
    """``params.data`` to transactions and labels."""
    history = load_history(params, clock.now())
    for table, path in ((history.transactions, PATHS.transactions), (history.labels, PATHS.labels)):
        path.parent.mkdir(exist_ok=True)
        pq.write_table(
            pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(), path, compression="zstd"
        )
    _log.info(
        "pipeline.preprocessed",
        transactions=len(history.transactions),
        labels=len(history.labels),
        rejected=history.rejected,
    )


def features(params: Params, features_file: Path | None = None) -> None:
    """Transactions and labels to the training set, in a snapshot's form; with the extra features of ``FEATURES_FILE``.

    Args:
        features_file: The file of the services' settings.

    Raises:
        CentinelaError: That is another file, whose changes ``dvc.yaml`` would not see.
    """
    if features_file is not None and features_file.resolve() != FEATURES_FILE.resolve():
        raise CentinelaError(
            f"CENTINELA_FEATURES_FILE={features_file}: the pipeline reads {FEATURES_FILE}, which DVC watches; put the"
            " features there, and set the variable to it or not at all"
        )
    history = History(pd.read_parquet(PATHS.transactions), pd.read_parquet(PATHS.labels))
    layout = with_features(FeatureLayout(history.attributes), FEATURES_FILE)
    dataset = training_set(history, params, layout)
    shutil.rmtree(PATHS.training_set, ignore_errors=True)
    digest = write_folder(dataset, PATHS.training_set)
    PATHS.feature_set.write_text(f"{layout.id}\n")
    _log.info(
        "pipeline.features_built",
        rows=len(dataset),
        frauds=int(dataset.is_fraud.sum()),
        features=len(layout.names),
        dataset_digest=digest,
    )


def train(params: Params, model_name: str) -> None:
    """The training set to a bundle, and the scores of the test rows.

    Raises:
        NotEnoughData: Too few rows or frauds.
    """
    dataset, layout = read_folder(PATHS.training_set), FeatureLayout.parse(PATHS.feature_set.read_text().strip())
    candidate = train_candidate(dataset, params.train.model_kind, params)
    rows = Scored.of(dataset, candidate)
    digest = folder_digest(PATHS.training_set)
    shutil.rmtree(PATHS.model, ignore_errors=True)
    write_bundle(
        dataset,
        layout,
        np.empty((0, len(layout.names))),
        candidate,
        params,
        measure(rows, params),
        Origin(model_name, REQUEST, digest, UNREGISTERED, newest(dataset)),
        PATHS.model,
    )
    pq.write_table(
        pa.table(
            {
                "transaction_id": pa.array(dataset.transaction_ids[candidate.split.test], pa.string()),
                "user_id": pa.array(rows.cards, pa.string()),
                "occurred_us": rows.times_us,
                "is_fraud": rows.is_fraud,
                "score": rows.scores,
                "forward_score": rows.forward,
            }
        ),
        PATHS.scores,
    )
    _write(
        PATHS.candidate,
        {
            "model_kind": candidate.kind,
            "features": list(candidate.names),
            "start_us": rows.start_us,
            **asdict(candidate.thresholds),
            "rows": len(dataset),
            "train_rows": len(candidate.split.train),
            "test_rows": len(rows.scores),
        },
    )
    _log.info("pipeline.trained", model_kind=candidate.kind, rows=len(dataset), dataset_digest=digest)


def evaluate(params: Params) -> GateVerdict:
    """The test rows' scores to metrics and plots; the gate's verdict, which is one of the metrics."""
    rows, candidate = scored(), read_candidate()
    metrics = measure(rows, params)
    parity, detail = loads(PATHS.model, FeatureLayout.parse(PATHS.feature_set.read_text().strip()))
    verdict = decide(
        Evidence(
            frauds=int(rows.is_fraud.sum()),
            scores=rows.scores,
            alert_rate=metrics["alert_rate"],
            average_precision=metrics.get("average_precision", float("nan")),
            champion_average_precision=None,
            share_better=None,
            parity=parity,
            parity_detail=detail,
        ),
        params.gate,
    )
    _write(
        PATHS.metrics,
        report.rounded(metrics | {"threshold": rows.threshold})
        | {
            "gate_passed": int(verdict.passed),
            "rows": candidate["rows"],
            "test_rows": len(rows.scores),
            "test_frauds": int(rows.is_fraud.sum()),
        },
    )
    _write(PATHS.score_plot, report.score_shares(rows.is_fraud, rows.scores))
    PATHS.curve_plot.parent.mkdir(exist_ok=True)
    _write(PATHS.curve_plot, report.precision_recall(rows.is_fraud, rows.scores))
    _write(PATHS.confusion_plot, report.confusion_cells(rows.is_fraud, rows.scores, rows.threshold))
    _log.info("pipeline.evaluated", passed=verdict.passed, reason=verdict.reason)
    return verdict


def require_passed() -> float:
    """The average precision of a model that the gate let pass.

    Raises:
        CentinelaError: It did not, or nothing was evaluated yet.
    """
    try:
        metrics = json.loads(PATHS.metrics.read_text())
    except FileNotFoundError as error:
        raise CentinelaError(f"there is no {PATHS.metrics}: run `dvc repro`") from error
    if not metrics["gate_passed"]:
        raise CentinelaError(
            f"the gate refuses this model: average precision {metrics['average_precision']}; "
            "see the log of the stage evaluate (`dvc repro -f -s evaluate`) and `gate` in params.yaml"
        )
    return float(metrics["average_precision"])


def scored() -> Scored:
    """The test rows and their scores, as ``train`` left them."""
    table, candidate = pq.read_table(PATHS.scores), read_candidate()
    return Scored(
        table["is_fraud"].to_numpy(),
        np.array(table["user_id"].to_pylist(), dtype=object),
        table["occurred_us"].to_numpy(),
        table["score"].to_numpy(),
        table["forward_score"].to_numpy(),
        candidate["decline"],
        candidate["start_us"],
    )


def read_candidate() -> dict[str, Any]:
    """Kind, features, thresholds and sizes, as ``train`` left them."""
    return dict(json.loads(PATHS.candidate.read_text()))


def _write(path: Path, content: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """As JSON that git shows line by line."""
    if isinstance(content, Mapping):
        path.write_text(json.dumps(content, indent=1) + "\n")
    else:
        path.write_text("[\n" + ",\n".join(map(json.dumps, content)) + "\n]\n")
