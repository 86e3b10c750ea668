"""Metrics, each against an independent computation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from centinela.model.metrics import sorted_average_precision
from centinela_trainer.training import evaluation

DAY_US = 86_400_000_000


def some_rows(
    seed: int, rows: int = 400, cards: int = 60, days: int = 4
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    is_fraud = random.random(rows) < 0.15
    scores = np.round(np.clip(random.normal(0.2 + 0.4 * is_fraud, 0.2), 0, 1), 2)
    users = np.array([f"u{n}" for n in random.integers(0, cards, rows)], dtype=object)
    return is_fraud, scores, users, np.sort(random.integers(0, days * DAY_US, rows))


def card_precision_by_hand(
    is_fraud: np.ndarray, scores: np.ndarray, cards: np.ndarray, times: np.ndarray, k: int, start: int
) -> float:
    found: set[str] = set()
    shares = []
    for day in sorted({(t - start) // DAY_US for t in times}):
        best: dict[str, float] = {}
        compromised: set[str] = set()
        for fraud, score, card, time in zip(is_fraud, scores, cards, times, strict=True):
            if card is None or (time - start) // DAY_US != day:
                continue
            best[card] = max(best.get(card, -1.0), score)
            if fraud:
                compromised.add(card)
        ranked = sorted((card for card in best if card not in found), key=lambda card: (-best[card], card))[:k]
        caught = [card for card in ranked if card in compromised]
        found.update(caught)
        shares.append(len(caught) / k)
    return float(np.mean(shares))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 7, 100])
def test_card_precision_agrees_with_a_count_by_hand(seed: int, k: int) -> None:
    is_fraud, scores, cards, times = some_rows(seed)
    assert evaluation.card_precision(is_fraud, scores, cards, times, k, 0) == pytest.approx(
        card_precision_by_hand(is_fraud, scores, cards, times, k, 0)
    )


def test_a_card_found_once_is_not_counted_on_later_days() -> None:
    times = np.array([0, DAY_US])
    cards = np.array(["a", "a"], dtype=object)
    assert evaluation.card_precision(np.array([True, True]), np.array([0.9, 0.9]), cards, times, 1, 0) == 0.5


def test_card_precision_is_undefined_where_no_card_is_known() -> None:
    is_fraud, scores, cards, times = some_rows(0)
    assert np.isnan(evaluation.card_precision(is_fraud, scores, np.full(len(cards), None), times, 100, 0))


@pytest.mark.parametrize("seed", range(3))
def test_metrics_agree_with_scikit_learn(seed: int) -> None:
    is_fraud, scores, cards, times = some_rows(seed)
    found = evaluation.evaluate(
        is_fraud, scores, cards, times, threshold=0.5, alert_budget=0.1, cards_per_day=100, start_us=0
    )
    flagged = scores >= 0.5
    assert found["average_precision"] == pytest.approx(reference.average_precision_score(is_fraud, scores))
    assert found["roc_auc"] == pytest.approx(reference.roc_auc_score(is_fraud, scores))
    assert found["precision"] == pytest.approx(reference.precision_score(is_fraud, flagged))
    assert found["recall"] == pytest.approx(reference.recall_score(is_fraud, flagged))
    assert found["f1_score"] == pytest.approx(reference.f1_score(is_fraud, flagged))
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(is_fraud, flagged))
    assert found["brier_score"] == pytest.approx(reference.brier_score_loss(is_fraud, scores))
    assert "card_precision_at_100" in found


def test_metrics_that_are_not_defined_are_left_out() -> None:
    _, scores, cards, times = some_rows(0)
    found = evaluation.evaluate(
        np.zeros(len(scores), dtype=bool),
        scores,
        cards,
        times,
        threshold=2.0,
        alert_budget=0.1,
        cards_per_day=100,
        start_us=0,
    )
    assert {"average_precision", "roc_auc", "recall"}.isdisjoint(found)
    assert all(np.isfinite(value) for value in found.values())


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0]), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_the_budget_is_never_exceeded_and_used_as_far_as_ties_allow(values: list[float], budget: float) -> None:
    scores = np.array(values)
    threshold = evaluation.at_budget(scores, budget)
    allowed = int(np.floor(budget * len(scores)))
    flagged = scores >= threshold
    assert flagged.sum() <= allowed
    below = scores[~flagged]
    if len(below):
        assert flagged.sum() + (below == below.max()).sum() > allowed


def test_max_f1_finds_the_best_threshold() -> None:
    is_fraud, scores, _, _ = some_rows(1)
    best = max(reference.f1_score(is_fraud, scores >= t) for t in np.unique(scores))
    assert reference.f1_score(is_fraud, scores >= evaluation.max_f1(is_fraud, scores)) == pytest.approx(best)


@pytest.mark.parametrize("policy", ["alert_budget", "max_f1"])
def test_review_never_lies_above_decline(policy: str) -> None:
    is_fraud, scores, _, _ = some_rows(2)
    chosen = evaluation.choose_thresholds(is_fraud, scores, policy=policy, alert_budget=0.05, review_budget=0.10)
    assert 0 <= chosen.review <= chosen.decline <= 1


def test_calibration_error_is_the_gap_between_score_and_share() -> None:
    is_fraud = np.tile([True, False, False, False], 500)
    assert evaluation.calibration_error(is_fraud, np.full(2_000, 0.25)) == pytest.approx(0.0)
    assert evaluation.calibration_error(is_fraud, np.full(2_000, 0.75)) == pytest.approx(0.5)


def test_sorted_average_precision_agrees_with_scikit_learn() -> None:
    is_fraud, scores, _, _ = some_rows(3)
    weight = np.random.default_rng(0).integers(0, 4, len(scores)).astype(float)
    order = np.argsort(-scores, kind="stable")
    assert sorted_average_precision(is_fraud[order], scores[order], weight[order]) == pytest.approx(
        reference.average_precision_score(is_fraud, scores, sample_weight=weight)
    )


def test_a_clearly_better_model_wins_the_bootstrap_and_an_equal_one_draws() -> None:
    is_fraud, scores, cards, _ = some_rows(4)
    good = np.clip(is_fraud * 0.5 + scores * 0.5, 0, 1)
    assert evaluation.share_better(is_fraud, good, scores, cards, samples=50, seed=1) == 1.0
    assert evaluation.share_better(is_fraud, scores, good, cards, samples=50, seed=1) == 0.0
    assert evaluation.share_better(is_fraud, scores, scores, cards, samples=50, seed=1) == 0.5
