"""Metrics of the models in service and of their decisions, in both roles."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection

import numpy as np
from prometheus_client import Counter, Gauge, Histogram

from centinela_predictor.models.scoring import DECISIONS, ScoredBatch
from centinela_predictor.models.slot import Alias

EXPORTED_BY = ("gateway", "stream")
PREDICTIONS = Counter("predictions_total", "Transactions decided on.", ["decision", "variant"])
FRAUD_RATE = Gauge("fraud_rate", "Share of fraud among the last thousand decisions.")
SCORING_DURATION = Histogram(
    "centinela_scoring_duration_seconds",
    "Scoring of one batch, features not included.",
    buckets=(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5),
)
MODEL_INFO = Gauge("centinela_model_info", "1 for the version in service under the alias.", ["version", "alias"])
MODEL_SWAPS = Counter("centinela_model_swaps_total", "Models put in service.", ["alias"])
MODELS_REJECTED = Counter("centinela_models_rejected_total", "Bundles refused.", ["alias"])


class FraudRate:
    """Share of fraud among the last *size* decisions."""

    def __init__(self, size: int = 1_000) -> None:
        self._recent: deque[bool] = deque(maxlen=size)
        self._lock = threading.Lock()

    def add(self, is_fraud: Collection[bool]) -> float:
        """Add decisions; returns the share, 0.0 without any."""
        with self._lock:
            self._recent.extend(is_fraud)
            return sum(self._recent) / len(self._recent) if self._recent else 0.0


_fraud_rate = FraudRate()


def count_decisions(batch: ScoredBatch) -> None:
    """Export the decisions of *batch*."""
    for share in batch.shares:
        counts = np.bincount(batch.decisions[share.rows], minlength=len(DECISIONS)).tolist()
        for decision, count in zip(DECISIONS, counts, strict=True):
            if count:
                PREDICTIONS.labels(decision, share.variant).inc(count)
    FRAUD_RATE.set(_fraud_rate.add(batch.is_fraud.tolist()))


def show_model(alias: Alias, before: str | None, version: str | None) -> None:
    """Export that *version* (None: no model) replaced *before* under *alias*."""
    if before is not None and before != version:
        MODEL_INFO.remove(before, alias)
    if version is not None:
        MODEL_INFO.labels(version, alias).set(1)
        MODEL_SWAPS.labels(alias).inc()
