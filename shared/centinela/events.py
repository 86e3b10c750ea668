"""The events: past-tense facts, frozen, versioned by integer.

A change within a version only adds optional fields. Every version has a JSON Schema and an example file under
``shared/centinela/schemas/``, generated from and checked against this module.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Id = Annotated[str, Meta(min_length=1, max_length=128, description="Opaque identifier, 1 to 128 characters.")]
Instant = Annotated[datetime, Meta(tz=True, description="RFC 3339 instant with its zone.")]
REFUND_HINT = '; for a refund or a reversal give its amount, not below 0, and "kind": "refund" or "reversal"'
"""What a negative amount probably means."""
Money = Annotated[float, Meta(ge=0, le=1e9, description="Major units of the currency, >= 0.")]
DEFAULT_CURRENCY = "EUR"
"""The currency of a transaction that names none."""
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", description="ISO 4217 code.")]
Probability = Annotated[float, Meta(ge=0, le=1)]
Decision = Literal["approve", "review", "decline"]
Variant = Literal["champion", "challenger", "none"]
Origin = Literal["stream", "gateway", "history"]
Kind = Literal["purchase", "refund", "reversal"]
PURCHASE: Kind = "purchase"
"""What windows consist of, what is scored, and what models learn from."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all events. ``version`` is the integer version of the event's type.

    ``encode`` leaves out a field that equals its default: an absent field means the schema's default.
    """

    version: int = 1


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The fields of a verdict, whoever gave it: what the code carries from scoring to the log.

    ``features`` and ``feature_set`` are the served vector and its layout, as in ``TransactionScored``.
    """

    origin: Origin
    decision: Decision
    variant: Variant
    score: Probability | None = None
    threshold: Probability | None = None
    model_version: str | None = None
    feature_set: str | None = None
    features: bytes | None = None
    reasons: tuple[str, ...] = ()
    scored_at: Instant | None = None
    feature_currency: str | None = None

    @property
    def is_fraud(self) -> bool:
        """Whether the transaction is declined."""
        return self.decision == "decline"


class AttachedVerdict(Verdict, frozen=True, gc=False):
    """A decision already taken on a transaction, which the stream adopts instead of scoring again.

    The gateway attaches the verdict that it answered with. Labelled history is loaded with ``origin="history"`` and
    ``variant="none"``: it feeds the feature state and the archive, and needs no model.
    """

    origin: Literal["gateway", "history"]


class TransactionReceived(Event, frozen=True):
    """A card transaction accepted for scoring. Topic ``transactions``, keyed by *user_id*, else by *transaction_id*.

    ``user_id`` is None where the source does not know the cardholder: history features are then missing values.
    ``attributes`` are raw numeric columns passed through to the model (``v1`` .. ``v28``, ...); None is a missing
    value. A ``kind`` other than ``purchase`` gives money back, ``amount`` of it: no model scores it, and it is in
    nobody's windows.
    """

    transaction_id: Id
    occurred_at: Instant
    amount: Money
    user_id: Id | None = None
    terminal_id: Id | None = None
    currency: Currency = DEFAULT_CURRENCY
    attributes: dict[str, float | None] = {}
    verdict: AttachedVerdict | None = None
    kind: Kind = "purchase"


class LabelReported(Event, frozen=True):
    """What became known of a transaction, when. Topic ``labels``, keyed like its transaction."""

    transaction_id: Id
    is_fraud: bool
    occurred_at: Instant
    reported_at: Instant
    user_id: Id | None = None
    source: str = "chargeback"


class TransactionScored(Event, frozen=True):
    """The one verdict on a transaction. Topic ``predictions``, keyed like its transaction.

    ``features`` is the served vector: float64, little-endian, in the order of ``feature_set`` (see
    ``centinela.features.layout`` and docs/features.md), base64 in JSON. ``score`` is None only for loaded history
    (``origin="history"``) and where ``kind`` is not ``purchase``: those are let through (``approve``) by no model
    (``variant="none"``). ``feature_currency`` is the currency of the vector's amounts, where it is not that of the
    transaction.
    """

    transaction_id: Id
    occurred_at: Instant
    amount: Money
    decision: Decision
    variant: Variant
    origin: Origin
    feature_set: str
    features: bytes
    scored_at: Instant
    user_id: Id | None = None
    terminal_id: Id | None = None
    currency: str = DEFAULT_CURRENCY
    score: Probability | None = None
    is_fraud: bool = False
    threshold: Probability | None = None
    model_version: str | None = None
    reasons: tuple[str, ...] = ()
    kind: Kind = "purchase"
    feature_currency: str | None = None

    @classmethod
    def of(cls, transaction: TransactionReceived, verdict: Verdict) -> TransactionScored:
        """The event of *verdict*, which must be complete, on *transaction*."""
        if verdict.feature_set is None or verdict.features is None or verdict.scored_at is None:
            raise ValueError(f"the verdict on {transaction.transaction_id} lacks its vector or its time")
        return cls(
            transaction_id=transaction.transaction_id,
            occurred_at=transaction.occurred_at,
            amount=transaction.amount,
            decision=verdict.decision,
            variant=verdict.variant,
            origin=verdict.origin,
            feature_set=verdict.feature_set,
            features=verdict.features,
            scored_at=verdict.scored_at,
            user_id=transaction.user_id,
            terminal_id=transaction.terminal_id,
            currency=transaction.currency,
            score=verdict.score,
            is_fraud=verdict.decision == "decline",
            threshold=verdict.threshold,
            model_version=verdict.model_version,
            reasons=verdict.reasons,
            kind=transaction.kind,
            feature_currency=verdict.feature_currency,
        )


class FeaturePane(Event, frozen=True):
    """Mergeable statistics of the transactions scored in one committed batch. Topic ``feature-panes``, keyed by source
    partition.

    One pane per source partition, event-time bucket, model version and variant in a batch. Written in the same
    transaction as the verdicts, so that a read_committed reader sees each scored transaction in exactly one pane.

    ``histograms``: uint32, little-endian, shape (features of the model, bins): counts per bin of the bundle's frozen
    reference edges; the last bin counts missing values. ``score_histogram``: uint32, 50 equal bins over [0, 1].
    ``transactions``: packed rows of ``PANE_ROW`` (see ``centinela.model.panes``): id hash, user hash, event time,
    score.
    """

    partition: int
    start: Instant
    end: Instant
    model_version: str
    variant: Variant
    count: int
    alerts: int
    watermark: Instant
    histograms: bytes
    score_histogram: bytes
    transactions: bytes


class PerformanceMeasured(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Performance on mature labels over a window of event time."""

    start: Instant
    end: Instant
    count: int
    frauds: int
    average_precision: float | None = None
    card_precision_at_100: float | None = None
    baseline_average_precision: float | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One observed statistic and its limit."""

    statistic: str
    value: float
    limit: float
    breached: bool
    feature: str | None = None
    significant: bool | None = None


class DriftReported(Event, frozen=True):
    """The state of drift over a window of event time. Topic ``drift-reports``, keyed by *model_name*."""

    report_id: Id
    model_name: str
    model_version: str
    start: Instant
    end: Instant
    count: int
    alert_rate: float
    state: Literal["insufficient", "stable", "warning", "alarm"]
    findings: tuple[Finding, ...]
    retrain: Literal["requested", "suppressed", "none"]
    reason: str
    performance: PerformanceMeasured | None = None
    report_path: str | None = None


class RetrainRequested(Event, frozen=True):
    """Somebody asks for training. Topic ``retrain-requests``, keyed by *model_name*. The id is deterministic."""

    request_id: Id
    model_name: str
    requested_by: Literal["drift", "operator"]
    as_of: Instant
    reason: str
    findings: tuple[Finding, ...] = ()
    model_kind: str | None = None


class ModelPromoted(Event, frozen=True, tag_field="type", tag="ModelPromoted"):
    """The registry's alias moved. Topic ``model-events``, key ``<model>:promoted:<alias>``."""

    model_name: str
    alias: Literal["champion", "challenger"]
    model_version: str | None
    previous_version: str | None
    sequence: int
    observed_at: Instant


class ModelLoaded(Event, frozen=True, tag_field="type", tag="ModelLoaded"):
    """A replica serves a version from now on. Topic ``model-events``, key ``<model>:loaded:<alias>:<replica>``."""

    model_name: str
    alias: Literal["champion", "challenger"]
    model_version: str
    replica: str
    sequence: int
    loaded_at: Instant
    duration_s: float


class ModelLoadRejected(Event, frozen=True, tag_field="type", tag="ModelRejected"):
    """A replica refused a bundle and serves on with the old one. Key ``<model>:rejected:<alias>:<replica>``."""

    model_name: str
    alias: Literal["champion", "challenger"]
    model_version: str
    replica: str
    sequence: int
    reason: str
    rejected_at: Instant
    serving_version: str | None = None


class TrainingCompleted(Event, frozen=True, tag_field="type", tag="TrainingCompleted"):
    """A training request ended. Topic ``model-events``, key ``<model>:trained:<request_id>``."""

    model_name: str
    request_id: Id
    outcome: Literal["promoted", "challenger", "refused", "failed"]
    reason: str
    completed_at: Instant
    run_id: str | None = None
    model_version: str | None = None
    average_precision: float | None = None
    champion_average_precision: float | None = None
    dataset_digest: str | None = None
    duration_s: float | None = None


ModelEvent = ModelPromoted | ModelLoaded | ModelLoadRejected | TrainingCompleted

SUPPORTED_VERSION = 1
_encoder = msgspec.json.Encoder()


def type_name(event_type: type[msgspec.Struct]) -> str:
    """What *event_type* is called on the wire and in the schemas: its tag, where it has one."""
    tag = event_type.__struct_config__.tag
    return tag if isinstance(tag, str) else event_type.__name__


def encode(event: Event) -> bytes:
    """The event as UTF-8 JSON."""
    return _encoder.encode(event)
