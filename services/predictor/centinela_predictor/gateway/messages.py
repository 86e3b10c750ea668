"""A request to the gateway on its way through, and its answer."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from centinela.events import Decision, Variant
from centinela.web.backpressure import Deadline
from centinela_predictor.gateway.requests import PredictRequest
from centinela_predictor.gateway.verdict_cache import CachedVerdict, GivenVerdict


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one transaction. ``repeated``: it was given before. ``unknown_fields``: fields of the request that
    mean nothing here, where such are not refused; left out without any."""

    transaction_id: str
    is_fraud: bool
    fraud_probability: float | None
    decision: Decision
    threshold: float | None
    model_version: str | None
    variant: Variant
    reasons: tuple[str, ...]
    occurred_at: datetime
    scored_at: datetime
    repeated: bool
    unknown_fields: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class Answers(msgspec.Struct, frozen=True):
    """The verdicts on a batch, in its order."""

    predictions: list[Answer]


@dataclass(eq=False)
class PredictCall:
    """One HTTP request on its way through the gateway; ``future`` gets its answers."""

    requests: list[PredictRequest]
    traceparent: str
    request_id: str
    deadline: Deadline
    future: Future[list[Answer]] = field(default_factory=Future)


@dataclass(eq=False)
class PreparedAnswer:
    """What a call is answered with: a verdict for each of its requests, and whether it was given before.

    ``direct``: its records were sent to Kafka. ``patience_ends``: those not acknowledged by then (monotonic) go to the
    outbox.
    """

    call: PredictCall
    ids: list[str] = field(default_factory=list)
    repeated: list[bool] = field(default_factory=list)
    verdicts: list[CachedVerdict] = field(default_factory=list)
    direct: bool = False
    patience_ends: float = 0.0

    def answers(self) -> list[Answer]:
        """The answers in the order of the requests."""
        return [
            _answer(cached.verdict, repeated) for cached, repeated in zip(self.verdicts, self.repeated, strict=True)
        ]


def _answer(verdict: GivenVerdict, repeated: bool) -> Answer:
    return Answer(
        transaction_id=verdict.transaction_id,
        is_fraud=verdict.is_fraud,
        fraud_probability=verdict.score,
        decision=verdict.decision,
        threshold=verdict.threshold,
        model_version=verdict.model_version,
        variant=verdict.variant,
        reasons=verdict.reasons,
        occurred_at=verdict.occurred_at,
        scored_at=verdict.scored_at,
        repeated=repeated,
    )
