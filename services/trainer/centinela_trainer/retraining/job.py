"""One training request from beginning to end: what the child process does. Every step may be repeated after a crash."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import structlog

from centinela.clock import Clock
from centinela.errors import CentinelaError
from centinela.events import RetrainRequested, TrainingCompleted
from centinela.model.bundle import sign
from centinela.model.registry import NO_CHAMPION, Registry
from centinela.model.signing import SigningKey
from centinela_trainer.archive.reader import ArchiveReader
from centinela_trainer.judgement import Judgement, TrainingRun
from centinela_trainer.mlflow_tracking import (
    BUNDLE,
    CHAMPION_VERSION,
    CODE_COMMIT,
    MODEL_KIND,
    MODEL_URI,
    REQUEST,
    LoggedData,
    LoggedModel,
    Tracking,
)
from centinela_trainer.params import MODEL_KINDS, ModelKind, Params, flatten
from centinela_trainer.retraining.champion import score_champion
from centinela_trainer.retraining.measurement import Measurements, Trained, comparison, skew_metrics
from centinela_trainer.retraining.publication import Publication
from centinela_trainer.retraining.training_data import read_training_data
from centinela_trainer.skew.check import SkewCheck
from centinela_trainer.skew.report import save
from centinela_trainer.snapshots.store import SnapshotStore
from centinela_trainer.training.candidate_bundle import Origin, Scored, loads, measure, write_artifacts, write_bundle
from centinela_trainer.training.environment import code_commit, pip_requirements
from centinela_trainer.training.fit import NotEnoughData, train
from centinela_trainer.training.gate import GateVerdict, decide

_log = structlog.get_logger(__name__)
_EXAMPLE_ROWS = 5


class Superseded(CentinelaError):
    """Another process took the request over."""


class TrainingJob:
    """Trains, measures, judges and publishes.

    Args:
        maturity: Age at which a transaction without a fraud label counts as genuine.
        snapshots: Where each training set is kept.
        skew: Compares served features with the batch form.
        work: An empty folder for files.
        signing: Signs each bundle that is logged.
    """

    def __init__(
        self,
        params: Params,
        maturity: timedelta,
        reader: ArchiveReader,
        snapshots: SnapshotStore,
        skew: SkewCheck,
        tracking: Tracking,
        registry: Registry,
        clock: Clock,
        work: Path,
        signing: SigningKey | None = None,
    ) -> None:
        self._params = params
        self._maturity = maturity
        self._reader = reader
        self._snapshots = snapshots
        self._skew = skew
        self._tracking = tracking
        self._registry = registry
        self._clock = clock
        self._work = work
        self._signing = signing
        self._publication = Publication(tracking, registry, clock, auto_promote=params.register.auto_promote)

    def run(self, request: RetrainRequested) -> TrainingCompleted:
        """Answer *request* from what the archive holds, or from the run that already answered it.

        Raises:
            DependencyUnavailable: MLflow is unavailable, or the archive changed; nothing is lost, run the job again.
        """
        earlier = self._tracking.find(request.request_id)
        if earlier is not None and earlier.completed is not None:
            _log.info("training.answered_before", request_id=request.request_id, run_id=earlier.run_id)
            return earlier.completed
        if earlier is not None and earlier.judgement is not None:
            run = TrainingRun(earlier.run_id, request.model_name, request.request_id)
            return self._publication.publish(run, earlier.judgement)
        for run_id in self._tracking.fail_unfinished():
            _log.warning("run.marked_failed", run_id=run_id)
        run = self._start(request)
        judgement = self.measure(run, request)
        if not self._tracking.is_running(run.run_id):
            raise Superseded(f"run {run.run_id} was ended by another process")
        self._tracking.save_judgement(run.run_id, judgement)
        return self._publication.publish(run, judgement)

    def measure(self, run: TrainingRun, request: RetrainRequested) -> Judgement:
        """Train a candidate, measure it, let the gate decide, and log all of it to *run*. Registers nothing."""
        started = self._clock.monotonic()
        try:
            data = read_training_data(self._reader, request, self._params.train, self._maturity)
            candidate = train(data.dataset, self._kind(request), self._params)
        except NotEnoughData as error:
            return Judgement(outcome="refused", reason=str(error), duration_s=self._since(started))
        trained = Trained(data, candidate, self._snapshots.write(data.dataset))
        _log.info("snapshot.kept", dataset_digest=trained.snapshot.digest, rows=len(data.dataset))
        measured = self._measurements(trained, request)
        verdict = decide(measured.evidence(trained, self._params.skew.max_mismatch_rate), self._params.gate)
        _log.info("challenger.judged", passed=verdict.passed, reason=verdict.reason)
        self._log_results(run.run_id, trained, measured, verdict)
        self._log_files(run.run_id, trained, measured)
        return Judgement(
            outcome="challenger" if verdict.passed else "refused",
            reason=verdict.reason,
            dataset_digest=trained.snapshot.digest,
            average_precision=_finite(measured.metrics.get("average_precision")),
            champion_average_precision=_finite(measured.metrics.get("champion_average_precision")),
            duration_s=self._since(started),
        )

    def _start(self, request: RetrainRequested) -> TrainingRun:
        kind = self._kind(request)
        run_id = self._tracking.start(
            f"{kind}_baseline",
            {
                REQUEST: request.request_id,
                "requested_by": request.requested_by,
                "request_reason": request.reason,
                "as_of": request.as_of.isoformat(),
                MODEL_KIND: kind,
                CODE_COMMIT: code_commit(),
            },
        )
        self._tracking.log(run_id, params=flatten(self._params, kind))
        return TrainingRun(run_id, request.model_name, request.request_id)

    def _kind(self, request: RetrainRequested) -> ModelKind:
        name = request.model_kind or self._params.train.model_kind
        kind: ModelKind | None = next((kind for kind in MODEL_KINDS if kind == name), None)
        if kind is None:
            raise CentinelaError(f"model_kind {name!r} is not one of {', '.join(MODEL_KINDS)}")
        return kind

    def _measurements(self, trained: Trained, request: RetrainRequested) -> Measurements:
        """Compare the candidate with the champion; build and load its bundle; check the features it was trained on."""
        dataset, candidate = trained.data.dataset, trained.candidate
        rows = dataset.matrix[candidate.split.test]
        champion = score_champion(self._registry, rows, trained.data.layout, self._work / "champion")
        metrics = measure(Scored.of(dataset, candidate), self._params) | comparison(
            trained, champion, seed=self._params.seed
        )
        bundle = self._work / BUNDLE
        write_bundle(
            dataset,
            trained.data.layout,
            trained.data.recent,
            candidate,
            self._params,
            metrics,
            Origin(request.model_name, request.request_id, trained.snapshot.digest, code_commit(), self._clock.now()),
            bundle,
        )
        parity, detail = loads(bundle, trained.data.layout)
        skew = self._skew(request.as_of)
        _log.info("skew.checked", result=skew.sentence() if skew is not None else "not checked")
        return Measurements(champion, metrics, parity, detail, skew)

    def _log_results(self, run_id: str, trained: Trained, measured: Measurements, verdict: GateVerdict) -> None:
        candidate, snapshot, champion = trained.candidate, trained.snapshot, measured.champion
        train_rows = candidate.split.train
        self._tracking.log(
            run_id,
            params={
                "train_size": len(train_rows),
                "test_size": len(candidate.split.test),
                "features": len(candidate.names),
            },
            metrics=measured.metrics
            | skew_metrics(measured.skew)
            | {
                "threshold": candidate.thresholds.decline,
                "review_threshold": candidate.thresholds.review,
                "train_frauds": float(trained.data.dataset.is_fraud[train_rows].sum()),
                "test_frauds": float(trained.truth.sum()),
            },
            tags={
                "dataset_digest": snapshot.digest,
                "dataset_snapshot": str(snapshot.path),
                "gate": "passed" if verdict.passed else "refused",
                "gate_reason": verdict.reason,
                CHAMPION_VERSION: NO_CHAMPION if champion is None or champion.withdrawn else champion.version,
            },
        )

    def _log_files(self, run_id: str, trained: Trained, measured: Measurements) -> None:
        """Upload plots, skew report, bundle, data set and model."""
        dataset, candidate, champion = trained.data.dataset, trained.candidate, measured.champion
        folder, bundle = self._work / "artifacts", self._work / BUNDLE
        write_artifacts(Scored.of(dataset, candidate), folder, champion.scores if champion is not None else None)
        if measured.skew is not None:
            save(measured.skew, folder / "skew.json")
        if self._signing is not None:
            sign(bundle, self._signing)
        self._tracking.log_artifacts(run_id, folder)
        self._tracking.log_artifacts(run_id, bundle, BUNDLE)
        matrix = dataset.columns(candidate.names)
        snapshot = trained.snapshot
        self._tracking.log_data(
            run_id, LoggedData("archive", snapshot.digest, str(snapshot.path), matrix, dataset.is_fraud)
        )
        uri = self._tracking.log_model(
            run_id, LoggedModel(candidate.estimator, candidate.names, matrix[-_EXAMPLE_ROWS:], pip_requirements())
        )
        self._tracking.log(run_id, tags={MODEL_URI: uri})

    def _since(self, started: float) -> float:
        return round(self._clock.monotonic() - started, 3)


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
