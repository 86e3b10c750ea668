"""One training request from beginning to end: what the child does. Every step may be repeated after a crash."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import structlog

from centinela.clock import Clock
from centinela.errors import CentinelaError, ModelRejected, PromotionConflict
from centinela.events import RetrainRequested, TrainingCompleted
from centinela.features.layout import FeatureLayout
from centinela.model.bundle import sign
from centinela.model.registry import CHALLENGER, CHAMPION, NOBODY, Registry
from centinela.model.scorer import Scorer
from centinela.model.signing import SigningKey
from centinela_trainer.archive.reader import ArchiveReader
from centinela_trainer.mlflow_tracking import BUNDLE, REQUEST, LoggedData, LoggedModel, Tracking
from centinela_trainer.params import MODEL_KINDS, ModelKind, Params, flatten
from centinela_trainer.skew.check import SkewCheck
from centinela_trainer.skew.report import SkewReport, excess, save
from centinela_trainer.snapshots.store import Snapshot, SnapshotStore
from centinela_trainer.training.candidate_bundle import Origin, Scored, loads, measure, write_artifacts, write_bundle
from centinela_trainer.training.dataset import Dataset, Floats, assemble, immature
from centinela_trainer.training.environment import code_commit, pip_requirements
from centinela_trainer.training.evaluation import average_precision, share_better
from centinela_trainer.training.feature_source import read_features
from centinela_trainer.training.fit import Candidate, NotEnoughData, train
from centinela_trainer.training.gate import Evidence, GateVerdict, decide

log = structlog.get_logger()
_BOOTSTRAP_SAMPLES, _EXAMPLE_ROWS = 200, 5
_MODEL_URI = "centinela.model_uri"


class Superseded(CentinelaError):
    """Another process took the request over."""


@dataclass(frozen=True)
class Data:
    """What a request trains on. ``recent``: rows too young to have labels, in the layout's columns."""

    layout: FeatureLayout
    dataset: Dataset
    recent: Floats


@dataclass(frozen=True)
class Champion:
    """The champion's version and its scores of the test rows; None where its bundle cannot score them."""

    version: str
    scores: Floats | None


class TrainingJob:
    """Trains, judges, logs, registers and promotes.

    Args:
        maturity: Age at which a transaction without a fraud label counts as genuine.
        snapshots: Where each training set is kept.
        skew: Holds served features against the batch form.
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
        self._params, self._maturity, self._reader, self._snapshots, self._skew = (
            params,
            maturity,
            reader,
            snapshots,
            skew,
        )
        self._tracking, self._registry, self._clock, self._work, self._signing = (
            tracking,
            registry,
            clock,
            work,
            signing,
        )

    def run(self, request: RetrainRequested) -> TrainingCompleted:
        """Answer *request*, on what the archive holds; from the run that answered it before, where there is one.

        Raises:
            DependencyUnavailable: MLflow is away, or the archive changed; nothing is lost, the job may be run again.
        """
        known = self._tracking.known(request.request_id)
        if known is not None and known.completed is not None:
            log.info("training.answered_before", request_id=request.request_id, run_id=known.run_id)
            return known.completed
        if known is not None and known.draft is not None:
            return self._finish(known.run_id, known.draft)
        for run_id in self._tracking.fail_unfinished():
            log.warning("run.marked_failed", run_id=run_id)
        return self._train(request)

    def _train(self, request: RetrainRequested) -> TrainingCompleted:
        began = self._clock.monotonic()
        kind = self._kind(request)
        run_id = self._tracking.start(
            f"{kind}_baseline",
            {
                REQUEST: request.request_id,
                "requested_by": request.requested_by,
                "request_reason": request.reason,
                "as_of": request.as_of.isoformat(),
                "model_kind": kind,
                "code_commit": code_commit(),
            },
        )
        self._tracking.log(run_id, params=flatten(self._params, kind))
        draft = TrainingCompleted(
            model_name=request.model_name,
            request_id=request.request_id,
            outcome="refused",
            reason="",
            completed_at=self._clock.now(),
            run_id=run_id,
        )
        try:
            data = self._read(request)
            candidate = train(data.dataset, kind, self._params)
        except NotEnoughData as short:
            draft = msgspec.structs.replace(draft, reason=str(short), duration_s=self._since(began))
        else:
            draft = self._judge(request, draft, data, candidate)
            draft = msgspec.structs.replace(draft, duration_s=self._since(began))
        if not self._tracking.is_running(run_id):
            raise Superseded(f"run {run_id} was ended by another process")
        self._tracking.save_draft(run_id, draft)
        return self._finish(run_id, draft)

    def _kind(self, request: RetrainRequested) -> ModelKind:
        asked = request.model_kind or self._params.train.model_kind
        kind: ModelKind | None = next((known for known in MODEL_KINDS if known == asked), None)
        if kind is None:
            raise CentinelaError(f"model_kind {asked!r} is none of {', '.join(MODEL_KINDS)}")
        return kind

    def _read(self, request: RetrainRequested) -> Data:
        feature_set = self._reader.feature_set(request.as_of)
        if feature_set is None:
            raise NotEnoughData(f"the archive holds no transaction up to {request.as_of.isoformat()}")
        layout, window = FeatureLayout.parse(feature_set), timedelta(days=self._params.train.window_days)
        start = request.as_of - self._maturity - window
        predictions = read_features(self._reader, layout, start, request.as_of, self._params.train.features)
        labels = self._reader.labels(start, request.as_of)
        dataset = assemble(
            predictions, labels, layout.names, as_of=request.as_of, maturity=self._maturity, window=window
        )
        log.info(
            "dataset.assembled",
            rows=len(dataset),
            frauds=int(dataset.is_fraud.sum()),
            predictions=len(predictions),
            labels=len(labels),
        )
        return Data(layout, dataset, immature(predictions, layout.names, as_of=request.as_of, maturity=self._maturity))

    def _judge(
        self, request: RetrainRequested, draft: TrainingCompleted, data: Data, candidate: Candidate
    ) -> TrainingCompleted:
        """Measure, bundle, decide and log; the draft with the outcome."""
        dataset, test, run_id = data.dataset, candidate.split.test, draft.run_id or ""
        truth, snapshot = dataset.is_fraud[test], self._snapshots.write(dataset)
        log.info("snapshot.kept", dataset_digest=snapshot.digest, rows=len(dataset))
        champion = self._champion(data, candidate)
        metrics = measure(Scored.of(dataset, candidate), self._params)
        better = None
        if champion is not None and champion.scores is not None:
            metrics["champion_average_precision"] = average_precision(truth, champion.scores)
            better = share_better(
                truth,
                candidate.test_scores,
                champion.scores,
                dataset.groups[test],
                samples=_BOOTSTRAP_SAMPLES,
                seed=self._params.seed,
            )
            metrics["share_of_samples_better"] = better
        write_bundle(
            dataset,
            data.layout,
            data.recent,
            candidate,
            self._params,
            metrics,
            Origin(request.model_name, request.request_id, snapshot.digest, code_commit(), self._clock.now()),
            self._work / BUNDLE,
        )
        parity, detail = loads(self._work / BUNDLE, data.layout)
        skew = self._skew(request.as_of)
        log.info("skew.checked", result=skew.sentence() if skew is not None else "not checked")
        verdict = decide(
            Evidence(
                frauds=int(truth.sum()),
                scores=candidate.test_scores,
                alert_rate=metrics["alert_rate"],
                average_precision=metrics.get("average_precision", float("nan")),
                champion_average_precision=metrics.get("champion_average_precision"),
                share_better=better,
                parity=parity,
                parity_detail=detail,
                skew=excess(skew, self._params.skew.max_mismatch_rate),
            ),
            self._params.gate,
        )
        log.info("challenger.judged", passed=verdict.passed, reason=verdict.reason)
        self._log(run_id, data, candidate, champion, metrics | skew_metrics(skew), snapshot, verdict, skew)
        return msgspec.structs.replace(
            draft,
            outcome="challenger" if verdict.passed else "refused",
            reason=verdict.reason,
            dataset_digest=snapshot.digest,
            average_precision=_finite(metrics.get("average_precision")),
            champion_average_precision=_finite(metrics.get("champion_average_precision")),
        )

    def _champion(self, data: Data, candidate: Candidate) -> Champion | None:
        """None where there is no champion. Without one, or with one that cannot score, the absolute minimum applies."""
        version = self._registry.version_of(CHAMPION)
        if version is None:
            return None
        try:
            scorer = Scorer.load(self._registry.download(version, self._work / "champion"), layout=data.layout)
        except ModelRejected as rejected:
            log.warning("champion.unusable", model_version=version, detail=str(rejected))
            return Champion(version, None)
        return Champion(version, scorer.score(data.dataset.matrix[candidate.split.test], data.layout))

    def _log(
        self,
        run_id: str,
        data: Data,
        candidate: Candidate,
        champion: Champion | None,
        metrics: dict[str, float],
        snapshot: Snapshot,
        verdict: GateVerdict,
        skew: SkewReport | None,
    ) -> None:
        dataset, test = data.dataset, candidate.split.test
        truth = dataset.is_fraud[test]
        folder = self._work / "artifacts"
        write_artifacts(Scored.of(dataset, candidate), folder, champion.scores if champion is not None else None)
        if skew is not None:
            save(skew, folder / "skew.json")
        self._tracking.log(
            run_id,
            params={"train_size": len(candidate.split.train), "test_size": len(test), "features": len(candidate.names)},
            metrics=metrics
            | {
                "threshold": candidate.thresholds.decline,
                "review_threshold": candidate.thresholds.review,
                "train_frauds": float(dataset.is_fraud[candidate.split.train].sum()),
                "test_frauds": float(truth.sum()),
            },
            tags={
                "dataset_digest": snapshot.digest,
                "dataset_snapshot": str(snapshot.path),
                "gate": "passed" if verdict.passed else "refused",
                "gate_reason": verdict.reason,
                "champion_version": champion.version if champion else NOBODY,
            },
        )
        if self._signing is not None:
            sign(self._work / BUNDLE, self._signing)
        self._tracking.log_artifacts(run_id, folder)
        self._tracking.log_artifacts(run_id, self._work / BUNDLE, BUNDLE)
        matrix = dataset.columns(candidate.names)
        self._tracking.log_data(
            run_id, LoggedData("archive", snapshot.digest, str(snapshot.path), matrix, dataset.is_fraud)
        )
        uri = self._tracking.log_model(
            run_id, LoggedModel(candidate.estimator, candidate.names, matrix[-_EXAMPLE_ROWS:], pip_requirements())
        )
        self._tracking.log(run_id, tags={_MODEL_URI: uri})

    def _finish(self, run_id: str, draft: TrainingCompleted) -> TrainingCompleted:
        """Register and promote what the gate let pass, then close the run. Safe to repeat."""
        completed = draft
        if draft.outcome == "challenger":
            completed = self._register(run_id, draft)
        completed = msgspec.structs.replace(completed, completed_at=self._clock.now())
        self._tracking.complete(run_id, completed)
        return completed

    def _register(self, run_id: str, draft: TrainingCompleted) -> TrainingCompleted:
        tags = self._tracking.tags(run_id)
        version = self._tracking.register(
            run_id,
            tags[_MODEL_URI],
            {
                REQUEST: draft.request_id,
                "dataset_digest": draft.dataset_digest or "",
                "code_commit": tags["code_commit"],
                "model_kind": tags["model_kind"],
            },
        )
        completed = msgspec.structs.replace(draft, model_version=version)
        if self._registry.version_of(CHAMPION) == version:
            return msgspec.structs.replace(completed, outcome="promoted")
        self._registry.set_alias(CHALLENGER, version)
        if not self._params.register.auto_promote:
            return msgspec.structs.replace(completed, reason=f"{draft.reason}; waits to be promoted")
        try:
            self._registry.promote(version, expect=tags["champion_version"], reason=draft.reason)
        except PromotionConflict as conflict:
            return msgspec.structs.replace(completed, reason=f"{draft.reason}; not promoted: {conflict}")
        return msgspec.structs.replace(completed, outcome="promoted")

    def _since(self, began: float) -> float:
        return round(self._clock.monotonic() - began, 3)


def skew_metrics(report: SkewReport | None) -> dict[str, float]:
    """What MLflow shows of a skew check; ``skew_mismatch_rate`` only where something was judged."""
    if report is None:
        return {}
    worst = report.worst
    return {"skew_judged_rows": float(sum(report.judged.values()))} | (
        {"skew_mismatch_rate": worst.rate} if worst is not None else {}
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
