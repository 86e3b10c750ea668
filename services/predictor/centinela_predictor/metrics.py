"""The predictor's metrics, in both roles."""

from __future__ import annotations

import threading
from collections import Counter as Counts
from collections import deque
from collections.abc import Collection

from prometheus_client import Counter, Gauge, Histogram

from centinela_predictor.model_slot import Alias
from centinela_predictor.scoring import ScoredBatch

PREDICTIONS = Counter("predictions_total", "Transactions decided on.", ["decision", "variant"])
PREDICTION_LATENCY = Histogram(
    "prediction_latency_seconds",
    "From a request's arrival to its answer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
FRAUD_RATE = Gauge("fraud_rate", "Share of fraud among the last thousand decisions.")
SCORING_DURATION = Histogram(
    "centinela_scoring_duration_seconds",
    "Scoring of one batch, features not included.",
    buckets=(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5),
)
MODEL_INFO = Gauge("centinela_model_info", "1 for the version in service under the alias.", ["version", "alias"])
MODEL_SWAPS = Counter("centinela_model_swaps_total", "Models put in service.", ["alias"])
MODELS_REJECTED = Counter("centinela_models_rejected_total", "Bundles refused.", ["alias"])
GATEWAY_REFUSED = Counter("centinela_gateway_refused_total", "Requests not served, by the error answered.", ["error"])
GATEWAY_REPEATED = Counter("centinela_gateway_repeated_total", "Transactions answered with the verdict given before.")
OUTBOX_RECORDS = Gauge(
    "centinela_gateway_outbox_records", "Verdicts in the outbox: answered, and not acknowledged by Kafka yet."
)
OUTBOX_BYTES = Gauge("centinela_gateway_outbox_bytes", "Their size.")
OUTBOX_OLDEST = Gauge("centinela_gateway_outbox_oldest_seconds", "Age of the oldest of them.")
OUTBOX_WRITTEN = Counter(
    "centinela_gateway_outbox_written_total",
    "Verdicts that went to the outbox because Kafka did not acknowledge in time.",
)
OUTBOX_DELIVERED = Counter(
    "centinela_gateway_outbox_delivered_total", "Verdicts that left the outbox: the log has them."
)
OUTBOX_SET_ASIDE = Counter(
    "centinela_gateway_outbox_set_aside_total",
    "Verdicts of the outbox that Kafka will never take; they stay in its table `refused`.",
)
REPLICA_RECORDS = Counter(
    "centinela_replica_records_total",
    "Records that the gateway followed, by what became of them.",
    ["topic", "outcome"],
)


class FraudRate:
    """Share of fraud among the last *size* decisions."""

    def __init__(self, size: int = 1_000) -> None:
        self._recent: deque[bool] = deque(maxlen=size)
        self._lock = threading.Lock()

    def add(self, is_fraud: Collection[bool]) -> float:
        """Take in decisions; the share afterwards, 0.0 without any."""
        with self._lock:
            self._recent.extend(is_fraud)
            return sum(self._recent) / len(self._recent) if self._recent else 0.0


_fraud_rate = FraudRate()


def count_decisions(batch: ScoredBatch) -> None:
    """Export what *batch* decided."""
    for (decision, variant), count in Counts(zip(batch.decisions, batch.variants, strict=True)).items():
        PREDICTIONS.labels(decision, variant).inc(count)
    FRAUD_RATE.set(_fraud_rate.add(batch.is_fraud))


def show_model(alias: Alias, before: str | None, version: str | None) -> None:
    """Export that *version* (None: no model) replaced *before* under *alias*."""
    if before is not None and before != version:
        MODEL_INFO.remove(before, alias)
    if version is not None:
        MODEL_INFO.labels(version, alias).set(1)
        MODEL_SWAPS.labels(alias).inc()
