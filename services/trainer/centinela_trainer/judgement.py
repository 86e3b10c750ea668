"""What one training measured and decided, before anything is registered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec


class Judgement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The gate's decision on a candidate, with what it rests on; or why there is no candidate.

    MLflow keeps it as JSON from the moment the run is logged, so a crash later does not repeat the training.
    """

    outcome: Literal["challenger", "refused"]
    reason: str
    dataset_digest: str | None = None
    average_precision: float | None = None
    champion_average_precision: float | None = None
    duration_s: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the model may be registered."""
        return self.outcome == "challenger"


@dataclass(frozen=True)
class TrainingRun:
    """The MLflow run that answers a request."""

    run_id: str
    model_name: str
    request_id: str
