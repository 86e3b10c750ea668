"""What the two peers do with a transaction: a user's count and mean over one day, a score by the same ONNX model, a
verdict.

Less than the predictor does: no terminals, no labels, no windows of 7 and 30 days, no copies recognised, no vector
logged, no reasons, no statistics for drift. Imports nothing of Centinela: it runs in the peer's environment.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import numpy as np
import onnxruntime

DAY_MS = 24 * 60 * 60 * 1000
DECLINE = 0.5


class Scorer:
    """The model's fraud probability, from the features that a peer has; the others are missing values.

    Args:
        model: The file ``model.onnx`` of a bundle.
        names: The model's features, in order.
    """

    def __init__(self, model: str, names: list[str]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[1].name
        self._width = len(names)
        self._at = [names.index(name) for name in ("amount", "is_night", "is_weekend", "user_count_1d", "user_mean_1d")]

    def scores(self, rows: list[tuple[float, ...]]) -> list[float]:
        """One score a row of (amount, night, weekend, count, mean)."""
        matrix = np.full((len(rows), self._width), np.nan, np.float32)
        matrix[:, self._at] = rows
        outputs = self._session.run([self._output], {self._input: matrix})[0]
        scores: list[float] = outputs[:, 1].tolist()
        return scores


def features(event: dict[str, Any], window: list[list[float]]) -> tuple[float, ...]:
    """Add *event* to its user's *window* of (time, amount), drop what is a day old; the row for ``Scorer``."""
    at = datetime.fromisoformat(event["occurred_at"])
    ms, amount = at.timestamp() * 1000, event["amount"]
    window.append([ms, amount])
    while window[0][0] <= ms - DAY_MS:
        del window[0]
    return amount, at.hour <= 6, at.weekday() >= 5, len(window), sum(entry[1] for entry in window) / len(window)


def verdict(event: dict[str, Any], score: float) -> dict[str, Any]:
    """What is written."""
    return {
        "transaction_id": event["transaction_id"],
        "user_id": event["user_id"],
        "occurred_at": event["occurred_at"],
        "amount": event["amount"],
        "score": score,
        "decision": "decline" if score >= DECLINE else "approve",
    }


def wait_for_the_start() -> None:
    """Everything is imported and loaded: say so, and wait for the start."""
    print("ready", flush=True)
    sys.stdin.readline()
