"""From a judgement to a registered, perhaps promoted model and the public event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from centinela.clock import Clock
from centinela.errors import PromotionConflict
from centinela.events import TrainingCompleted
from centinela.model.registry import CHALLENGER, CHAMPION, Registry
from centinela_trainer.judgement import Judgement, TrainingRun
from centinela_trainer.mlflow_tracking import CHAMPION_VERSION, CODE_COMMIT, MODEL_KIND, MODEL_URI, REQUEST, Tracking


@dataclass(frozen=True)
class _Release:
    """What became of the model. ``version``: None where it was not registered."""

    outcome: Literal["promoted", "challenger", "refused"]
    reason: str
    version: str | None = None


class Publication:
    """Registers and promotes a model that passed the gate, then closes its run.

    Args:
        auto_promote: Without it, a model that passed stays the challenger until somebody promotes it.
    """

    def __init__(self, tracking: Tracking, registry: Registry, clock: Clock, *, auto_promote: bool) -> None:
        self._tracking = tracking
        self._registry = registry
        self._clock = clock
        self._auto_promote = auto_promote

    def publish(self, run: TrainingRun, judgement: Judgement) -> TrainingCompleted:
        """Register, promote and complete. After a crash at any point, the same call finishes what is left.

        Raises:
            DependencyUnavailable: MLflow is unavailable.
        """
        release = self._release(run, judgement)
        completed = TrainingCompleted(
            model_name=run.model_name,
            request_id=run.request_id,
            outcome=release.outcome,
            reason=release.reason,
            completed_at=self._clock.now(),
            run_id=run.run_id,
            model_version=release.version,
            average_precision=judgement.average_precision,
            champion_average_precision=judgement.champion_average_precision,
            dataset_digest=judgement.dataset_digest,
            duration_s=judgement.duration_s,
        )
        self._tracking.complete(run.run_id, completed)
        return completed

    def _release(self, run: TrainingRun, judgement: Judgement) -> _Release:
        if not judgement.passed:
            return _Release("refused", judgement.reason)
        tags = self._tracking.tags(run.run_id)
        return self._promote(self._register(run, judgement, tags), judgement.reason, tags)

    def _register(self, run: TrainingRun, judgement: Judgement, tags: Mapping[str, str]) -> str:
        """The run's version; a new one only where there is none yet."""
        return self._tracking.register(
            run.run_id,
            tags[MODEL_URI],
            {
                REQUEST: run.request_id,
                "dataset_digest": judgement.dataset_digest or "",
                CODE_COMMIT: tags[CODE_COMMIT],
                MODEL_KIND: tags[MODEL_KIND],
            },
        )

    def _promote(self, version: str, reason: str, tags: Mapping[str, str]) -> _Release:
        if self._registry.version_of(CHAMPION) == version:
            return _Release("promoted", reason, version)
        self._registry.set_alias(CHALLENGER, version)
        if not self._auto_promote:
            return _Release("challenger", f"{reason}; waits to be promoted", version)
        try:
            self._registry.promote(version, expect=tags[CHAMPION_VERSION], reason=reason)
        except PromotionConflict as conflict:
            return _Release("challenger", f"{reason}; not promoted: {conflict}", version)
        return _Release("promoted", reason, version)
