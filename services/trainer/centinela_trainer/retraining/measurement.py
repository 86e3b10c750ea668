"""What is measured of a candidate before the gate decides."""

from __future__ import annotations

from dataclasses import dataclass

from centinela.model.metrics import average_precision
from centinela_trainer.retraining.champion import Champion
from centinela_trainer.retraining.training_data import TrainingData
from centinela_trainer.skew.report import SkewReport, excess
from centinela_trainer.snapshots.store import Snapshot
from centinela_trainer.training.dataset import Bools
from centinela_trainer.training.evaluation import share_better
from centinela_trainer.training.fit import Candidate
from centinela_trainer.training.gate import Evidence

_BOOTSTRAP_SAMPLES = 200


@dataclass(frozen=True)
class Trained:
    """A candidate, the data it was trained on and where that data is kept."""

    data: TrainingData
    candidate: Candidate
    snapshot: Snapshot

    @property
    def truth(self) -> Bools:
        """Labels of the test rows, shape (n,)."""
        return self.data.dataset.is_fraud[self.candidate.split.test]


@dataclass(frozen=True)
class Measurements:
    """Everything that was measured of a candidate. ``parity``, ``parity_detail``: as in ``Evidence``."""

    champion: Champion | None
    metrics: dict[str, float]
    parity: bool
    parity_detail: str
    skew: SkewReport | None

    def evidence(self, trained: Trained, max_mismatch_rate: float) -> Evidence:
        """What the gate looks at."""
        return Evidence(
            frauds=int(trained.truth.sum()),
            scores=trained.candidate.test_scores,
            alert_rate=self.metrics["alert_rate"],
            average_precision=self.metrics.get("average_precision", float("nan")),
            champion_average_precision=self.metrics.get("champion_average_precision"),
            share_better=self.metrics.get("share_of_samples_better"),
            parity=self.parity,
            parity_detail=self.parity_detail,
            skew=excess(self.skew, max_mismatch_rate),
            champion_fault=self._champion_fault(),
        )

    def _champion_fault(self) -> str | None:
        if self.champion is None or self.champion.fault is None:
            return None
        return f"version {self.champion.version}: {self.champion.fault}"


def comparison(trained: Trained, champion: Champion | None, *, seed: int) -> dict[str, float]:
    """The metrics that need the champion's scores; none without them."""
    if champion is None or champion.scores is None:
        return {}
    candidate = trained.candidate
    return {
        "champion_average_precision": average_precision(trained.truth, champion.scores),
        "share_of_samples_better": share_better(
            trained.truth,
            candidate.test_scores,
            champion.scores,
            trained.data.dataset.groups[candidate.split.test],
            samples=_BOOTSTRAP_SAMPLES,
            seed=seed,
        ),
    }


def skew_metrics(report: SkewReport | None) -> dict[str, float]:
    """What MLflow shows of a skew check; ``skew_mismatch_rate`` only where something was judged."""
    if report is None:
        return {}
    metrics = {"skew_judged_rows": float(sum(report.judged.values()))}
    if report.worst is not None:
        metrics["skew_mismatch_rate"] = report.worst.rate
    return metrics
