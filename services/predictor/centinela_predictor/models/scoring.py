"""The one scoring path of stream and gateway: rows in, verdicts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from centinela.errors import DependencyUnavailable
from centinela.events import Decision, Kind, Verdict
from centinela.features.layout import FeatureLayout, pack_rows
from centinela_predictor.models.routing import Router
from centinela_predictor.models.slot import ModelPair, ModelSlot, ServedModel

ServedVariant = Literal["champion", "challenger"]
V = TypeVar("V", bound=Verdict)
NOT_A_NUMBER = "score is not a number: sent to review"
DECISIONS: tuple[Decision, ...] = ("approve", "review", "decline")
REVIEW, DECLINE = 1, 2


@dataclass(frozen=True, slots=True)
class Share:
    """The rows of a batch that one model scored."""

    variant: ServedVariant
    model: ServedModel
    rows: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """The outcome of scoring, in columns: row *i* of each belongs to row *i* of *matrix*.

    Args:
        matrix: The features, shape (n, len(layout.names)).
        scores: Fraud probabilities, shape (n,).
        decisions: Indices into ``DECISIONS``, shape (n,).
        share_of: Indices into *shares*, shape (n,).
        reasons: The reasons of the rows that have any.
    """

    layout: FeatureLayout
    matrix: NDArray[np.float64]
    scores: NDArray[np.float64]
    decisions: NDArray[np.uint8]
    share_of: NDArray[np.intp]
    shares: list[Share]
    reasons: dict[int, tuple[str, ...]]

    @property
    def is_fraud(self) -> NDArray[np.bool_]:
        """Which rows are declined, shape (n,)."""
        declined: NDArray[np.bool_] = self.decisions == DECLINE
        return declined

    def verdicts(self, kind: type[V], origin: Literal["stream", "gateway"], scored_at: datetime) -> list[V]:
        """The verdict on each row, as a *kind* from *origin*."""
        models = [(share.variant, share.model.threshold, share.model.version) for share in self.shares]
        feature_set, reasons = self.layout.id, self.reasons
        rows = zip(
            self.decisions.tolist(), self.share_of.tolist(), self.scores.tolist(), pack_rows(self.matrix), strict=True
        )
        verdicts = []
        for row, (decision, share, score, features) in enumerate(rows):
            variant, threshold, version = models[share]
            verdicts.append(
                kind(
                    origin=origin,
                    decision=DECISIONS[decision],
                    variant=variant,
                    score=score,
                    threshold=threshold,
                    model_version=version,
                    feature_set=feature_set,
                    features=features,
                    reasons=reasons.get(row, ()),
                    scored_at=scored_at,
                )
            )
        return verdicts


def not_scored(
    form: type[V],
    origin: Literal["stream", "gateway"],
    kind: Kind,
    features: bytes,
    layout: FeatureLayout,
    at: datetime,
) -> V:
    """The verdict on a refund or a reversal (*kind*), as a *form*: it is let through, by no model.

    Args:
        features: Its vector, without any window.
        at: When it is given.
    """
    return form(
        origin=origin,
        decision="approve",
        variant="none",
        feature_set=layout.id,
        features=features,
        reasons=(f"{kind}: not scored",),
        scored_at=at,
    )


class ScoringCore:
    """Scores feature rows with the models in service.

    Args:
        slot: The models; read once per batch, so that a batch never sees half a swap.
        router: Which rows go to the challenger, where one is loaded.
    """

    def __init__(self, slot: ModelSlot, router: Router) -> None:
        self._slot = slot
        self._router = router

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
        shares = self._shares(self._slot.pair, keys)
        batch = ScoredBatch(
            layout, matrix, np.empty(n), np.zeros(n, dtype=np.uint8), np.zeros(n, dtype=np.intp), shares, {}
        )
        for number, share in enumerate(shares):
            model = share.model
            rows = matrix if len(share.rows) == n else matrix[share.rows]
            scores, not_a_number = _bounded(model.scorer.score(rows, layout), model.review_threshold)
            batch.scores[share.rows] = scores
            batch.share_of[share.rows] = number
            flagged = np.flatnonzero(scores >= min(model.review_threshold, model.threshold))
            declined = (scores[flagged] >= model.threshold) & ~not_a_number[flagged]
            batch.decisions[share.rows[flagged]] = np.where(declined, DECLINE, REVIEW)
            for at in flagged.tolist():
                row = int(share.rows[at])
                batch.reasons[row] = (
                    (NOT_A_NUMBER,) if not_a_number[at] else model.explainer.explain(matrix[row], layout.names)
                )
        return batch

    def _shares(self, pair: ModelPair, keys: Sequence[str]) -> list[Share]:
        if pair.champion is None:
            raise DependencyUnavailable("no verified model serves yet")
        everything = np.arange(len(keys))
        if pair.challenger is None:
            shares = [Share("champion", pair.champion, everything)]
        else:
            challenged = self._router.goes_to_challenger(keys)
            shares = [
                Share("champion", pair.champion, everything[~challenged]),
                Share("challenger", pair.challenger, everything[challenged]),
            ]
        return [share for share in shares if len(share.rows)]


def _bounded(raw: NDArray[np.float64], review_threshold: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores within [0, 1], and which of them are not finite: those become *review_threshold*, so that a person
    looks at them."""
    not_a_number = ~np.isfinite(raw)
    return np.clip(np.where(not_a_number, review_threshold, raw), 0.0, 1.0), not_a_number
