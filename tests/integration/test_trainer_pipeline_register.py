"""The pipeline's model in a real registry: challenger, with the commit, its training set and its pictures; once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from centinela.clock import SystemClock
from centinela.errors import CentinelaError
from centinela.model.registry import CHALLENGER, Registry
from centinela.model.scorer import Scorer
from centinela_trainer.params import DataParams, EvaluateParams, GateParams, HgbParams, Params, TrainParams
from centinela_trainer.pipeline import stages as pipeline_stages
from centinela_trainer.pipeline.register import register_model
from centinela_trainer.settings import TrainerSettings
from centinela_trainer.snapshots.store import SnapshotStore

COMMIT = "d" * 40


def params(minimum: float) -> Params:
    return Params(
        data=DataParams(days=12, customers=150, terminals=300),
        train=TrainParams(min_rows=100, min_frauds=5, hgb=HgbParams(max_iter=10)),
        evaluate=EvaluateParams(test_days=4),
        gate=GateParams(min_average_precision=minimum, min_frauds=1, min_alert_rate=0, max_alert_rate=1),
    )


def test_the_evaluated_model_becomes_the_challenger_once_and_a_refused_one_never(
    make_settings: Callable[..., TrainerSettings],
    unique: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = make_settings(
        TrainerSettings, kafka=False, mlflow=True, model_name=f"Piped-{unique}", experiment=f"pipeline-{unique}"
    )
    monkeypatch.setenv("CENTINELA_CODE_COMMIT", COMMIT)
    (tmp_path / params(0).data.path).mkdir(parents=True)
    (tmp_path / pipeline_stages.FEATURES_FILE).write_text("# none\n")
    monkeypatch.chdir(tmp_path)
    pipeline_stages.preprocess(params(0), SystemClock())
    pipeline_stages.features(params(0))
    pipeline_stages.train(params(0), settings.model_name)
    pipeline_stages.evaluate(params(1))
    with pytest.raises(CentinelaError, match="the gate refuses this model"):
        register_model(settings, params(1), SystemClock())

    pipeline_stages.evaluate(params(0))
    registered = register_model(settings, params(0), SystemClock())
    assert register_model(settings, params(0), SystemClock()) == registered

    registry = Registry(settings)
    [version] = registry.versions()
    assert (registered.outcome, registered.model_version, dict(registry.aliases())) == (
        "challenger",
        version.version,
        {CHALLENGER: version.version},
    )
    assert (version.tags["code_commit"], version.tags["dataset_digest"]) == (COMMIT, registered.dataset_digest)
    bundle = Scorer.load(registry.download(version.version, tmp_path / "bundle")).manifest
    assert (bundle.code_commit, bundle.dataset_digest, bundle.request_id) == (
        COMMIT,
        registered.dataset_digest,
        registered.request_id,
    )
    assert bundle.created_at > datetime(2026, 1, 1, tzinfo=UTC)
    assert len(SnapshotStore(settings.snapshots_dir).read(registered.dataset_digest or "")) == bundle.reference.rows
    run = registry.run(version.run_id or "")
    assert run is not None
    assert (run.name, run.status, run.tags["requested_by"]) == ("hgb_baseline", "FINISHED", "pipeline")
