"""The pipeline's model into MLflow's registry, as the trainer service would put it there."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import msgspec

from centinela.clock import Clock
from centinela.events import TrainingCompleted
from centinela.model import bundle
from centinela.model.backends import load_estimator
from centinela.model.registry import CHALLENGER, Registry
from centinela_trainer.mlflow_tracking import BUNDLE, REQUEST, LoggedData, LoggedModel, Tracking
from centinela_trainer.params import MODEL_KINDS, Params, flatten
from centinela_trainer.pipeline.stages import PATHS, require_passed, scored
from centinela_trainer.settings import TrainerSettings
from centinela_trainer.snapshots.format import read_folder
from centinela_trainer.snapshots.store import SnapshotStore
from centinela_trainer.training.candidate_bundle import write_artifacts
from centinela_trainer.training.environment import code_commit, pip_requirements

_EXAMPLE_ROWS = 5


def register_model(settings: TrainerSettings, params: Params, clock: Clock) -> TrainingCompleted:
    """A run and a version (alias ``challenger``) of the evaluated bundle, which names the commit from here on.

    The same bundle at the same commit is registered once. Nothing is promoted: the champion may have seen other data.

    Raises:
        CentinelaError: The gate refused the model.
        DependencyUnavailable: MLflow is away.
    """
    average_precision = require_passed()
    verified, commit = bundle.read_verified(PATHS.model), code_commit()
    request_id = f"pipeline-{hashlib.sha256(f'{commit}{verified.manifest_digest}'.encode()).hexdigest()[:16]}"
    tracking, registry = Tracking(settings), Registry(settings)
    known = tracking.known(request_id)
    if known is not None and known.completed is not None:
        return known.completed
    dataset = read_folder(PATHS.training_set)
    snapshot = SnapshotStore(settings.snapshots_dir).write(dataset)
    manifest = msgspec.structs.replace(
        verified.manifest, request_id=request_id, code_commit=commit, created_at=clock.now()
    )
    kind = next(kind for kind in MODEL_KINDS if kind == manifest.model_kind)
    run_id = tracking.start(
        f"{kind}_baseline",
        {
            REQUEST: request_id,
            "requested_by": "pipeline",
            "model_kind": kind,
            "code_commit": commit,
            "dataset_digest": snapshot.digest,
            "dataset_snapshot": str(snapshot.path),
        },
    )
    rows, names = scored(), manifest.feature_names
    tracking.log(
        run_id,
        params=flatten(params, kind)
        | {"train_size": len(dataset) - len(rows.scores), "test_size": len(rows.scores), "features": len(names)},
        metrics=manifest.metrics | {"threshold": manifest.threshold, "review_threshold": manifest.review_threshold},
    )
    work = Path(tempfile.mkdtemp(prefix="centinela-pipeline-"))
    try:
        write_artifacts(rows, work / "artifacts")
        bundle.write(work / BUNDLE, manifest, verified.files)
        if (key := settings.signing_key) is not None:
            bundle.sign(work / BUNDLE, key)
        tracking.log_artifacts(run_id, work / "artifacts")
        tracking.log_artifacts(run_id, work / BUNDLE, BUNDLE)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    matrix = dataset.columns(names)
    tracking.log_data(run_id, LoggedData("pipeline", snapshot.digest, str(snapshot.path), matrix, dataset.is_fraud))
    uri = tracking.log_model(
        run_id,
        LoggedModel(load_estimator(verified.files[bundle.SKOPS]), names, matrix[-_EXAMPLE_ROWS:], pip_requirements()),
    )
    version = tracking.register(
        run_id, uri, {REQUEST: request_id, "dataset_digest": snapshot.digest, "code_commit": commit, "model_kind": kind}
    )
    registry.set_alias(CHALLENGER, version)
    completed = TrainingCompleted(
        model_name=manifest.model_name,
        request_id=request_id,
        outcome="challenger",
        completed_at=clock.now(),
        run_id=run_id,
        reason=f"average precision {average_precision:.3f} in the pipeline; waits to be promoted",
        model_version=version,
        average_precision=average_precision,
        dataset_digest=snapshot.digest,
    )
    tracking.complete(run_id, completed)
    return completed
