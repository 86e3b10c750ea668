"""The shared measures against scikit-learn and a naive reading of their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from centinela.model.metrics import average_precision, card_precision, sorted_average_precision

Rows = list[tuple[bool, int, int]]
ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=60).filter(
    lambda rows: any(fraud and weight for fraud, _, weight in rows)
)


@given(ROWS)
def test_average_precision_is_that_of_scikit_learn_ties_included(rows: Rows) -> None:
    is_fraud = np.array([fraud for fraud, _, _ in rows])
    scores = np.array([score / 12 for _, score, _ in rows])
    assert average_precision(is_fraud, scores) == pytest.approx(average_precision_score(is_fraud, scores))


@given(ROWS)
def test_weights_count_as_in_scikit_learn(rows: Rows) -> None:
    rows = sorted(rows, key=lambda row: -row[1])
    is_fraud = np.array([fraud for fraud, _, _ in rows])
    scores = np.array([score / 12 for _, score, _ in rows])
    weights = np.array([float(weight) for _, _, weight in rows])
    assert sorted_average_precision(is_fraud, scores, weights) == pytest.approx(
        average_precision_score(is_fraud, scores, sample_weight=weights)
    )


def test_average_precision_is_undefined_without_a_fraud() -> None:
    assert np.isnan(average_precision(np.zeros(3, dtype=bool), np.array([0.1, 0.2, 0.3])))


@pytest.mark.parametrize("kind", [str, np.uint64])
def test_of_cards_with_equal_scores_the_smaller_one_comes_first(kind: type) -> None:
    cards: np.ndarray = np.array([2, 1]).astype(kind)
    everything, days = np.ones(2, dtype=bool), np.zeros(2, dtype=np.int64)
    scores = np.array([0.5, 0.5])
    assert card_precision(np.array([False, True]), scores, cards, everything, days, 1) == 1.0
    assert card_precision(np.array([True, False]), scores, cards, everything, days, 1) == 0.0


def test_a_transaction_without_a_card_counts_for_no_card_and_no_day() -> None:
    cards, known = np.array(["", "a"]), np.array([False, True])
    is_fraud, scores = np.array([True, True]), np.array([0.9, 0.8])
    assert card_precision(is_fraud, scores, cards, known, np.array([0, 1]), 1) == 1.0
    assert np.isnan(card_precision(is_fraud, scores, cards, np.zeros(2, dtype=bool), np.array([0, 1]), 1))
