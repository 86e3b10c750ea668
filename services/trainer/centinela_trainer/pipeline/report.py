"""Metrics and plots of the pipeline, as DVC reads them: pure functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve

from centinela_trainer.training.evaluation import Bools, Floats, confusion

CURVE_POINTS, SCORE_BINS, DIGITS = 200, 50, 4
GENUINE, FRAUD, PASSED, FLAGGED = "genuine", "fraud", "passed", "flagged"


def rounded(metrics: dict[str, float]) -> dict[str, float]:
    """To the digits that two machines agree on."""
    return {name: round(value, DIGITS) for name, value in sorted(metrics.items())}


def precision_recall(is_fraud: Bools, scores: Floats) -> list[dict[str, float]]:
    """Points of the curve with ascending recall, about two hundred of them."""
    precision, recall, _ = precision_recall_curve(is_fraud, scores)
    precision, recall = precision[::-1], recall[::-1]
    chosen = np.unique(np.searchsorted(recall, np.linspace(0, 1, CURVE_POINTS)).clip(0, len(recall) - 1))
    return [
        {"recall": round(float(recall[at]), DIGITS), "precision": round(float(precision[at]), DIGITS)} for at in chosen
    ]


def score_shares(is_fraud: Bools, scores: Floats) -> list[dict[str, float]]:
    """Share of the genuine, and of the frauds, whose score is at least each of fifty steps."""
    steps = np.arange(SCORE_BINS + 1) / SCORE_BINS
    return [
        {
            "score": float(step),
            **{
                name: round(float(np.mean(scores[rows] >= step)), DIGITS)
                for name, rows in ((GENUINE, ~is_fraud), (FRAUD, is_fraud))
                if rows.any()
            },
        }
        for step in steps
    ]


def confusion_cells(is_fraud: Bools, scores: Floats, threshold: float) -> list[dict[str, Any]]:
    """The four counts, with each one's share of its row."""
    counts = confusion(is_fraud, scores >= threshold)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [
        {
            "actual": actual,
            "predicted": predicted,
            "transactions": int(counts[row, column]),
            "share": round(float(shares[row, column]), DIGITS),
        }
        for row, actual in enumerate((GENUINE, FRAUD))
        for column, predicted in enumerate((PASSED, FLAGGED))
    ]
