"""The pipeline's model into MLflow's registry, as the trainer service would put it there."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import msgspec

from centinela.clock import Clock
from centinela.events import TrainingCompleted
from centinela.model import bundle
from centinela.model.backends import load_estimator
from centinela.model.registry import Registry
from centinela.model.signing import SigningKey
from centinela_trainer.judgement import Judgement, TrainingRun
from centinela_trainer.mlflow_tracking import (
    BUNDLE,
    CODE_COMMIT,
    MODEL_KIND,
    MODEL_URI,
    REQUEST,
    LoggedData,
    LoggedModel,
    Tracking,
)
from centinela_trainer.params import MODEL_KINDS, Params, flatten
from centinela_trainer.pipeline.stages import PATHS, require_passed, scored
from centinela_trainer.retraining.publication import Publication
from centinela_trainer.settings import TrainerSettings
from centinela_trainer.snapshots.format import read_folder
from centinela_trainer.snapshots.store import Snapshot, SnapshotStore
from centinela_trainer.training.candidate_bundle import Scored, write_artifacts
from centinela_trainer.training.dataset import Dataset
from centinela_trainer.training.environment import code_commit, pip_requirements

_EXAMPLE_ROWS = 5


def register_model(settings: TrainerSettings, params: Params, clock: Clock) -> TrainingCompleted:
    """A run and a version (alias ``challenger``) of the evaluated bundle, which names the commit from here on.

    The same bundle at the same commit is registered once. Nothing is promoted: the champion may have seen other data.

    Raises:
        CentinelaError: The gate refused the model.
        DependencyUnavailable: MLflow is unavailable.
    """
    average_precision = require_passed()
    verified = bundle.read_verified(PATHS.model)
    commit = code_commit()
    request_id = f"pipeline-{hashlib.sha256(f'{commit}{verified.manifest_digest}'.encode()).hexdigest()[:16]}"
    tracking = Tracking(settings)
    earlier = tracking.find(request_id)
    if earlier is not None and earlier.completed is not None:
        return earlier.completed
    dataset = read_folder(PATHS.training_set)
    snapshot = SnapshotStore(settings.snapshots_dir).write(dataset)
    manifest = msgspec.structs.replace(
        verified.manifest, request_id=request_id, code_commit=commit, created_at=clock.now()
    )
    run_id = _start(tracking, manifest, snapshot)
    _log_results(tracking, run_id, manifest, params, scored(), len(dataset))
    _log_bundle(tracking, run_id, manifest, verified.files, settings.signing_key)
    _log_model(tracking, run_id, dataset, snapshot, manifest, verified.files[bundle.SKOPS])
    return Publication(tracking, Registry(settings), clock, auto_promote=False).publish(
        TrainingRun(run_id, manifest.model_name, request_id),
        Judgement(
            outcome="challenger",
            reason=f"average precision {average_precision:.3f} in the pipeline",
            dataset_digest=snapshot.digest,
            average_precision=average_precision,
        ),
    )


def _start(tracking: Tracking, manifest: bundle.Manifest, snapshot: Snapshot) -> str:
    return tracking.start(
        f"{manifest.model_kind}_baseline",
        {
            REQUEST: manifest.request_id,
            "requested_by": "pipeline",
            MODEL_KIND: manifest.model_kind,
            CODE_COMMIT: manifest.code_commit,
            "dataset_digest": snapshot.digest,
            "dataset_snapshot": str(snapshot.path),
        },
    )


def _log_results(
    tracking: Tracking, run_id: str, manifest: bundle.Manifest, params: Params, rows: Scored, dataset_rows: int
) -> None:
    kind = next(kind for kind in MODEL_KINDS if kind == manifest.model_kind)
    tracking.log(
        run_id,
        params=flatten(params, kind)
        | {
            "train_size": dataset_rows - len(rows.scores),
            "test_size": len(rows.scores),
            "features": len(manifest.feature_names),
        },
        metrics=manifest.metrics | {"threshold": manifest.threshold, "review_threshold": manifest.review_threshold},
    )


def _log_bundle(
    tracking: Tracking, run_id: str, manifest: bundle.Manifest, files: dict[str, bytes], key: SigningKey | None
) -> None:
    with tempfile.TemporaryDirectory(prefix="centinela-pipeline-", ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        write_artifacts(scored(), work / "artifacts")
        bundle.write(work / BUNDLE, manifest, files)
        if key is not None:
            bundle.sign(work / BUNDLE, key)
        tracking.log_artifacts(run_id, work / "artifacts")
        tracking.log_artifacts(run_id, work / BUNDLE, BUNDLE)


def _log_model(
    tracking: Tracking, run_id: str, dataset: Dataset, snapshot: Snapshot, manifest: bundle.Manifest, estimator: bytes
) -> None:
    matrix = dataset.columns(manifest.feature_names)
    tracking.log_data(run_id, LoggedData("pipeline", snapshot.digest, str(snapshot.path), matrix, dataset.is_fraud))
    uri = tracking.log_model(
        run_id,
        LoggedModel(load_estimator(estimator), manifest.feature_names, matrix[-_EXAMPLE_ROWS:], pip_requirements()),
    )
    tracking.log(run_id, tags={MODEL_URI: uri})
