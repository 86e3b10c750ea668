"""How good scores are: pure functions of labels, scores, cards and times.

Accuracy is reported because readers expect it, but it says little where 99 % of transactions are genuine: average
precision, Card Precision@k and recall at the alert budget are what decisions rest on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_auc_score

from centinela.model import metrics
from centinela.times import DAY_US

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
CALIBRATION_BINS = 10


@dataclass(frozen=True)
class Thresholds:
    """Scores from which on a transaction is flagged (``decline``) and looked at (``review``)."""

    decline: float
    review: float


def roc_auc(is_fraud: Bools, scores: Floats) -> float:
    """Area under the ROC curve; NaN where one class is absent."""
    return float(roc_auc_score(is_fraud, scores)) if 0 < is_fraud.sum() < len(is_fraud) else float("nan")


def confusion(is_fraud: Bools, flagged: Bools) -> NDArray[np.int64]:
    """Counts, shape (2, 2): rows genuine and fraud, columns passed and flagged."""
    cells = is_fraud.astype(np.int64) * 2 + flagged
    return np.bincount(cells, minlength=4).reshape(2, 2)


def card_precision(
    is_fraud: Bools, scores: Floats, cards: NDArray[np.object_], times_us: NDArray[np.int64], k: int, start_us: int
) -> float:
    """``centinela.model.metrics.card_precision`` of rows as a dataset holds them.

    Args:
        is_fraud: Labels, shape (n,).
        scores: Scores, shape (n,).
        cards: Card (user) ids, shape (n,); None where unknown.
        times_us: Event times, microseconds since the epoch, shape (n,).
        k: Cards that can be checked in a day; also the denominator.
        start_us: Days are blocks of 24 hours from here on.
    """
    known = np.array([card is not None for card in cards], dtype=np.bool_)
    return metrics.card_precision(is_fraud, scores, cards.astype(str), known, (times_us - start_us) // DAY_US, k)


def at_budget(scores: Floats, budget: float) -> float:
    """The least threshold that flags (``score >= threshold``) no more than *budget* of *scores*, shape (n,), n > 0.

    Where the highest scores tie beyond the budget, the threshold is just above them and nothing is flagged.
    """
    ordered = np.sort(scores)[::-1]
    allowed = int(np.floor(budget * len(ordered)))
    if allowed >= len(ordered):
        return float(ordered[-1])
    if allowed == 0 or ordered[allowed - 1] == ordered[allowed]:
        return float(np.nextafter(ordered[allowed], np.inf))
    return float(ordered[allowed - 1])


def max_f1(is_fraud: Bools, scores: Floats) -> float:
    """The threshold with the highest F1; at least one fraud is needed."""
    precision, recall, thresholds = precision_recall_curve(is_fraud, scores)
    with np.errstate(invalid="ignore"):
        f1 = np.nan_to_num(2 * precision * recall / (precision + recall))[:-1]
    return float(thresholds[int(np.argmax(f1))])


def choose_thresholds(
    is_fraud: Bools, scores: Floats, *, policy: str, alert_budget: float, review_budget: float
) -> Thresholds:
    """Both thresholds within [0, 1], review never above decline."""
    decline = max_f1(is_fraud, scores) if policy == "max_f1" and is_fraud.any() else at_budget(scores, alert_budget)
    decline = min(max(decline, 0.0), 1.0)
    return Thresholds(decline=decline, review=min(max(at_budget(scores, review_budget), 0.0), decline))


def calibration_error(is_fraud: Bools, scores: Floats) -> float:
    """Mean gap between score and fraud share over ten equally filled bins, weighted by their counts."""
    order = np.argsort(scores, kind="stable")
    gaps = [
        abs(float(scores[part].mean()) - float(is_fraud[part].mean())) * len(part)
        for part in np.array_split(order, CALIBRATION_BINS)
        if len(part)
    ]
    return float(np.sum(gaps) / len(scores))


def evaluate(
    is_fraud: Bools,
    scores: Floats,
    cards: NDArray[np.object_],
    times_us: NDArray[np.int64],
    *,
    threshold: float,
    alert_budget: float,
    cards_per_day: int,
    start_us: int,
) -> dict[str, float]:
    """All metrics by the name under which MLflow shows them; a metric that is not defined on these rows is left out.

    Args:
        is_fraud, scores, cards, times_us: As in ``card_precision``, n > 0.
        threshold: A transaction is flagged from this score on.
        alert_budget: Share of transactions that ``recall_at_budget`` may flag.
        cards_per_day: k of Card Precision@k.
        start_us: Where the first day begins, microseconds.
    """
    flagged = scores >= threshold
    (passed_genuine, flagged_genuine), (passed_fraud, flagged_fraud) = confusion(is_fraud, flagged).astype(float)
    frauds, alerts = passed_fraud + flagged_fraud, flagged_genuine + flagged_fraud
    precision = flagged_fraud / alerts if alerts else 0.0
    recall = flagged_fraud / frauds if frauds else float("nan")
    caught_at_budget = (is_fraud & (scores >= at_budget(scores, alert_budget))).sum()
    values = {
        "average_precision": metrics.average_precision(is_fraud, scores),
        "roc_auc": roc_auc(is_fraud, scores),
        f"card_precision_at_{cards_per_day}": card_precision(
            is_fraud, scores, cards, times_us, cards_per_day, start_us
        ),
        "precision": precision,
        "recall": recall,
        "f1_score": 2 * flagged_fraud / (frauds + alerts) if frauds + alerts else float("nan"),
        "accuracy": (passed_genuine + flagged_fraud) / len(is_fraud),
        "recall_at_budget": float(caught_at_budget) / frauds if frauds else float("nan"),
        "alert_rate": alerts / len(is_fraud),
        "fraud_rate": frauds / len(is_fraud),
        "brier_score": float(np.mean((scores - is_fraud) ** 2)),
        "calibration_error": calibration_error(is_fraud, scores),
    }
    return {name: float(value) for name, value in values.items() if np.isfinite(value)}


def share_better(
    is_fraud: Bools, challenger: Floats, champion: Floats, groups: NDArray[np.object_], *, samples: int, seed: int
) -> float:
    """Share of bootstrap samples in which the challenger's average precision is the higher one.

    Whole *groups* (cards) are drawn, since the frauds of one card come together. Both models are judged on the same
    draw.

    Args:
        is_fraud, challenger, champion: Labels and scores, shape (n,).
        groups: Group of each row, shape (n,).
        samples: Bootstrap samples.
        seed: Of the draws.

    Returns:
        In [0, 1]; ties count half; NaN where no sample held a fraud.
    """
    codes, _ = pd.factorize(groups, use_na_sentinel=False)
    count = int(codes.max()) + 1
    random = np.random.default_rng(seed)
    orders = [(np.argsort(-scores, kind="stable"), scores) for scores in (challenger, champion)]
    wins: list[float] = []
    for _ in range(samples):
        weight = random.multinomial(count, np.full(count, 1 / count))[codes].astype(float)
        if not weight[is_fraud].any():
            continue
        challenger_precision, champion_precision = (
            metrics.sorted_average_precision(is_fraud[order], scores[order], weight[order]) for order, scores in orders
        )
        tie = challenger_precision == champion_precision
        wins.append(0.5 if tie else float(challenger_precision > champion_precision))
    return float(np.mean(wins)) if wins else float("nan")
