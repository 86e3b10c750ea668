"""The one scoring path: rows in, verdicts out, for the stream and the gateway alike [P]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from centinela.errors import DependencyUnavailable
from centinela.events import Decision
from centinela.features.layout import FeatureLayout
from centinela_predictor.models.routing import Router
from centinela_predictor.models.slot import ModelPair, ModelSlot, ServedModel

ServedVariant = Literal["champion", "challenger"]
NOT_A_NUMBER = "score is not a number: sent to review"


@dataclass(frozen=True, slots=True)
class Share:
    """The rows of a batch that one model scored."""

    variant: ServedVariant
    model: ServedModel
    rows: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """Verdicts in the order of the rows; every column has one entry per row. ``shares`` has the rows by model."""

    scores: NDArray[np.float64]
    decisions: list[Decision]
    is_fraud: list[bool]
    thresholds: list[float]
    model_versions: list[str]
    variants: list[ServedVariant]
    reasons: list[tuple[str, ...]]
    shares: list[Share]


class ScoringCore:
    """Scores feature rows with the models in service.

    Args:
        slot: The models; read once per batch, so that a batch never sees half a swap.
        router: Which rows go to the challenger, where one is loaded.
    """

    def __init__(self, slot: ModelSlot, router: Router) -> None:
        self._slot, self._router = slot, router

    @property
    def ready(self) -> bool:
        """Whether a champion serves."""
        return self._slot.loaded

    def score(self, matrix: NDArray[np.float64], layout: FeatureLayout, keys: Sequence[str]) -> ScoredBatch:
        """Verdicts on *matrix*.

        Args:
            matrix: Features, shape (n, len(layout.names)), missing values NaN.
            layout: What the columns mean.
            keys: Per row the user id, else the transaction id: decides the variant. Shape (n,).

        Raises:
            DependencyUnavailable: No champion serves.
        """
        n = len(keys)
        champion, shares = self._shares(self._slot.pair, keys)
        scores = np.empty(n, dtype=np.float64)
        decisions: list[Decision] = ["approve"] * n
        is_fraud = [False] * n
        thresholds, versions = [champion.threshold] * n, [champion.version] * n
        variants: list[ServedVariant] = ["champion"] * n
        reasons: list[tuple[str, ...]] = [()] * n
        for share in shares:
            model = share.model
            rows = matrix if len(share.rows) == n else matrix[share.rows]
            values, unknown = _bounded(model.scorer.score(rows, layout), model.review_threshold)
            scores[share.rows] = values
            if share.variant == "challenger":
                for row in share.rows.tolist():
                    thresholds[row], versions[row], variants[row] = model.threshold, model.version, "challenger"
            for at in np.flatnonzero(values >= min(model.review_threshold, model.threshold)).tolist():
                row = int(share.rows[at])
                declined = bool(values[at] >= model.threshold) and not unknown[at]
                is_fraud[row] = declined
                decisions[row] = "decline" if declined else "review"
                reasons[row] = (NOT_A_NUMBER,) if unknown[at] else model.explainer.explain(matrix[row], layout.names)
        return ScoredBatch(scores, decisions, is_fraud, thresholds, versions, variants, reasons, shares)

    def _shares(self, pair: ModelPair, keys: Sequence[str]) -> tuple[ServedModel, list[Share]]:
        if pair.champion is None:
            raise DependencyUnavailable("no verified model serves yet")
        everything = np.arange(len(keys))
        if pair.challenger is None:
            shares = [Share("champion", pair.champion, everything)]
        else:
            away = self._router.goes_to_challenger(keys)
            shares = [
                Share("champion", pair.champion, everything[~away]),
                Share("challenger", pair.challenger, everything[away]),
            ]
        return pair.champion, [share for share in shares if len(share.rows)]


def _bounded(raw: NDArray[np.float64], review_threshold: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores within [0, 1], and which of them were no number; those stand at *review_threshold*, for a person to look
    at."""
    unknown = ~np.isfinite(raw)
    return np.clip(np.where(unknown, review_threshold, raw), 0.0, 1.0), unknown
