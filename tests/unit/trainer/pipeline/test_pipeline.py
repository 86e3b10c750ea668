"""The pipeline's stages on a small world: the same twice, by the same code as a retrain, and refused where the gate
says so."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from centinela.errors import CentinelaError
from centinela.model.bundle import verify
from centinela.model.metrics import average_precision
from centinela.testing.clock import FixedClock
from centinela_local.paths import CHECKOUT
from centinela_trainer.params import DataParams, EvaluateParams, GateParams, HgbParams, Params, ParamsError, TrainParams
from centinela_trainer.pipeline import report as pipeline_report
from centinela_trainer.pipeline import stages as pipeline_stages
from centinela_trainer.pipeline.data import load_history
from centinela_trainer.pipeline.stages import FEATURES_FILE, PATHS
from centinela_trainer.snapshots.format import folder_digest, read_folder
from centinela_trainer.snapshots.store import SnapshotStore

CLOCK = FixedClock(datetime(2026, 3, 1, tzinfo=UTC))
SMALL = Params(
    data=DataParams(days=12, customers=150, terminals=300),
    train=TrainParams(min_rows=100, min_frauds=5, hgb=HgbParams(max_iter=10)),
    evaluate=EvaluateParams(test_days=4),
    gate=GateParams(min_average_precision=0, min_frauds=1, min_alert_rate=0, max_alert_rate=1),
)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the simulator's where params.yaml has it, and no extra features, to run the stages in."""
    (tmp_path / SMALL.data.path).mkdir(parents=True)
    (tmp_path / FEATURES_FILE).write_text("# none\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_all(params: Params = SMALL) -> None:
    pipeline_stages.preprocess(params, CLOCK)
    pipeline_stages.features(params)
    pipeline_stages.train(params, "FraudDetector")
    pipeline_stages.evaluate(params)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_runs_give_the_same_bytes_and_the_bundle_names_its_training_set(checkout: Path, tmp_path: Path) -> None:
    run_all()
    first = contents(checkout)
    run_all()
    assert contents(checkout) == first

    digest = verify(PATHS.model).dataset_digest
    assert digest == folder_digest(PATHS.training_set)
    assert SnapshotStore(tmp_path / "snapshots").write(read_folder(PATHS.training_set)).digest == digest


def test_what_preprocess_writes_has_no_nulls_and_each_transaction_once(checkout: Path) -> None:
    pipeline_stages.preprocess(SMALL, CLOCK)
    transactions, labels = pd.read_parquet(PATHS.transactions), pd.read_parquet(PATHS.labels)
    assert len(transactions) > 1_000
    assert not transactions.isna().any(axis=None)
    assert not labels.isna().any(axis=None)
    assert transactions["transaction_id"].is_unique
    assert set(labels["transaction_id"]) <= set(transactions["transaction_id"])


def test_metrics_and_plots_say_what_the_scores_do(checkout: Path) -> None:
    run_all()
    rows, metrics = pipeline_stages.scored(), json.loads(PATHS.metrics.read_text())
    assert metrics["average_precision"] == round(average_precision(rows.is_fraud, rows.scores), 4)
    assert (metrics["gate_passed"], metrics["test_rows"], metrics["test_frauds"]) == (
        1,
        len(rows.scores),
        rows.is_fraud.sum(),
    )
    cells = {
        (cell["actual"], cell["predicted"]): cell["transactions"]
        for cell in json.loads(PATHS.confusion_plot.read_text())
    }
    assert cells["fraud", "flagged"] == (rows.scores[rows.is_fraud] >= rows.threshold).sum()
    assert sum(cells.values()) == len(rows.scores)
    assert json.loads(PATHS.score_plot.read_text())[0] == {"score": 0.0, "genuine": 1.0, "fraud": 1.0}
    assert pipeline_stages.require_passed() == metrics["average_precision"]


def test_a_model_below_the_gate_is_refused(checkout: Path) -> None:
    with pytest.raises(CentinelaError, match=r"no metrics\.json: run `dvc repro`"):
        pipeline_stages.require_passed()
    run_all()
    demanding = Params(
        data=SMALL.data,
        train=SMALL.train,
        evaluate=SMALL.evaluate,
        gate=GateParams(min_average_precision=1, min_frauds=1),
    )
    assert not pipeline_stages.evaluate(demanding).passed
    with pytest.raises(CentinelaError, match="the gate refuses this model"):
        pipeline_stages.require_passed()


def test_a_users_file_takes_the_simulators_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(
        "when,card,value,bad,v9\n"
        + "".join(f"{n * 3600},c{n % 5},{10 + n},{int(n % 10 == 0)},{n / 7}\n" for n in range(100))
        + "x,c1,1,0,1\n"
    )
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(
        yaml.safe_dump(
            {
                "columns": {"when": "occurred_at", "card": "user_id", "value": "amount", "bad": "is_fraud"},
                "attributes": {"v9": "v9"},
                "time": {"unit": "s", "base": "2026-01-01T00:00:00Z"},
                "id_prefix": "m-",
            }
        )
    )
    history = load_history(
        Params(data=DataParams(path=str(path), mapping=str(mapping), label_delay_days=3)), CLOCK.now()
    )
    assert (len(history.transactions), len(history.labels), history.rejected, history.attributes) == (
        100,
        10,
        1,
        ("v9",),
    )
    assert set((history.labels["reported_at"] - history.labels["occurred_at"]).dt.days) == {3}


def test_a_file_that_is_not_there_and_a_drift_that_does_not_exist_are_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"nowhere\.csv: no such file"):
        load_history(Params(data=DataParams(path="nowhere.csv")), CLOCK.now())
    with pytest.raises(ParamsError, match=r"data\.scenarios: 'flood@3' is not a drift"):
        load_history(Params(data=DataParams(path=str(tmp_path), scenarios=("flood@3",))), CLOCK.now())


def test_the_curve_is_thinned_but_keeps_its_ends() -> None:
    random = np.random.default_rng(1)
    is_fraud = random.random(5_000) < 0.3
    points = pipeline_report.precision_recall(is_fraud, random.random(5_000) + 0.5 * is_fraud)
    assert len(points) <= 201
    assert (points[0]["recall"], points[-1]["recall"]) == (0.0, 1.0)
    assert [point["recall"] for point in points] == sorted(point["recall"] for point in points)


def test_a_feature_of_the_watched_file_is_in_the_training_set(checkout: Path) -> None:
    (checkout / FEATURES_FILE).write_text("- {name: user_max_2h, entity: user, aggregation: max, window: 2h}\n")
    pipeline_stages.preprocess(SMALL, CLOCK)
    pipeline_stages.features(SMALL, checkout / FEATURES_FILE)
    assert PATHS.feature_set.read_text().startswith("v1+user_max_2h=user.max(amount,2h):")
    assert "user_max_2h" in read_folder(PATHS.training_set).names


def test_features_of_a_file_that_dvc_does_not_watch_are_refused(checkout: Path) -> None:
    with pytest.raises(CentinelaError, match=r"CENTINELA_FEATURES_FILE=mine.yaml: the pipeline reads features.yaml"):
        pipeline_stages.features(SMALL, Path("mine.yaml"))
    stage = yaml.safe_load((CHECKOUT / "dvc.yaml").read_text())["stages"]["features"]
    assert str(FEATURES_FILE) in stage["deps"]


def test_every_file_that_dvc_yaml_names_of_the_stages_is_one_that_they_write() -> None:
    stages = yaml.safe_load((CHECKOUT / "dvc.yaml").read_text())["stages"]
    named = {
        next(iter(out)) if isinstance(out, dict) else out
        for stage in stages.values()
        for kind in ("outs", "metrics")
        for out in stage.get(kind, [])
    }
    assert named == {str(path) for path in PATHS}
