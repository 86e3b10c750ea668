"""Candidates: deterministic, scored out of sample, and able to learn a pattern that only the newest days show."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from centinela.model.metrics import average_precision
from centinela_trainer.params import MODEL_KINDS, EvaluateParams, HgbParams, ModelKind, Params, RfParams, TrainParams
from centinela_trainer.training.dataset import Dataset
from centinela_trainer.training.fit import NotEnoughData, fraud_scores, train

DAY_US = 86_400_000_000
PARAMS = Params(
    train=TrainParams(hgb=HgbParams(max_iter=25), rf=RfParams(n_estimators=15, n_jobs=1)),
    evaluate=EvaluateParams(test_days=2),
)


def a_dataset(
    rows: int = 3_000,
    *,
    new_pattern_from: float = 99.0,
    days: float = 10,
    seed: int = 3,
    last_column_empty: bool = True,
) -> Dataset:
    """Fraud where the amount is high; from a day on also where the count is high on hijacked cards."""
    random = np.random.default_rng(seed)
    times = np.sort(random.uniform(0, days, rows))
    amount, count, noise = random.lognormal(3, 1, rows), random.poisson(2, rows).astype(float), random.normal(size=rows)
    is_fraud = (amount > 90) & (random.random(rows) < 0.8)
    hijacked = (times >= new_pattern_from) & (random.random(rows) < 0.06)
    count = np.where(hijacked, 12.0, count)
    noise[::17] = np.nan
    matrix = np.column_stack([amount, count, noise, np.full(rows, np.nan)])
    return Dataset(
        names=("amount", "count", "noise", "empty"),
        matrix=matrix if last_column_empty else matrix[:, :3],
        is_fraud=is_fraud | hijacked,
        transaction_ids=np.array([f"t{n:05d}" for n in range(rows)], dtype=object),
        cards=np.array([f"u{n}" for n in random.integers(0, 400, rows)], dtype=object),
        times_us=(times * DAY_US).astype(np.int64),
        mature_until_us=int(days * DAY_US),
    )


@pytest.mark.parametrize("kind", MODEL_KINDS)
def test_each_kind_learns_leaves_out_the_empty_column_and_repeats_itself(kind: ModelKind) -> None:
    dataset = a_dataset()
    one, two = train(dataset, kind, PARAMS), train(dataset, kind, PARAMS)
    assert one.names == ("amount", "count", "noise")
    assert average_precision(dataset.is_fraud[one.split.test], one.test_scores) > 0.5
    np.testing.assert_array_equal(one.test_scores, two.test_scores)
    np.testing.assert_array_equal(
        fraud_scores(one.estimator, dataset.columns(one.names)), fraud_scores(two.estimator, dataset.columns(two.names))
    )


def test_cross_fitting_shows_a_new_pattern_learned_where_a_forward_model_cannot_know_it() -> None:
    dataset = a_dataset(new_pattern_from=8.0)
    candidate = train(dataset, "hgb", PARAMS)
    truth = dataset.is_fraud[candidate.split.test]
    assert average_precision(truth, candidate.test_scores) > average_precision(truth, candidate.forward_scores) + 0.2


def test_no_card_is_scored_by_a_model_that_saw_it_in_the_test_days() -> None:
    """A card's own label must not leak into its score: with labels drawn at random per card there is nothing to
    learn."""
    random = np.random.default_rng(0)
    dataset = a_dataset(2_000)
    cards = np.array([f"u{n}" for n in random.integers(0, 150, 2_000)], dtype=object)
    fraud_cards = {f"u{n}" for n in range(0, 150, 10)}
    fingerprint = np.array([float(card[1:]) for card in cards])
    leaky = Dataset(
        names=("fingerprint",),
        matrix=fingerprint[:, None],
        transaction_ids=dataset.transaction_ids,
        cards=cards,
        is_fraud=np.array([card in fraud_cards for card in cards]) & (dataset.times_us > 8 * DAY_US)
        | (random.random(2_000) < 0.02),
        times_us=dataset.times_us,
        mature_until_us=dataset.mature_until_us,
    )
    candidate = train(leaky, "hgb", PARAMS)
    truth = leaky.is_fraud[candidate.split.test]
    seen = fraud_scores(candidate.estimator, leaky.columns(candidate.names, candidate.split.test))
    assert average_precision(truth, candidate.test_scores) < 1.5 * truth.mean()
    assert average_precision(truth, seen) > 2.5 * truth.mean()


def test_one_fold_means_scores_of_the_forward_model() -> None:
    params = Params(train=PARAMS.train, evaluate=EvaluateParams(test_days=2, folds=1))
    candidate = train(a_dataset(), "hgb", params)
    np.testing.assert_array_equal(candidate.test_scores, candidate.forward_scores)


def test_without_refit_the_registered_model_is_the_forward_one() -> None:
    params = Params(train=TrainParams(hgb=HgbParams(max_iter=25), refit=False), evaluate=EvaluateParams(test_days=2))
    dataset = a_dataset()
    candidate = train(dataset, "hgb", params)
    np.testing.assert_array_equal(
        fraud_scores(candidate.estimator, dataset.columns(candidate.names, candidate.split.test)),
        candidate.forward_scores,
    )


def test_too_few_rows_are_said_so() -> None:
    with pytest.raises(NotEnoughData, match="400 mature transactions"):
        train(a_dataset(400), "hgb", PARAMS)


def test_too_few_frauds_are_said_so() -> None:
    dataset = a_dataset()
    honest = dataclasses.replace(dataset, is_fraud=np.zeros(len(dataset), dtype=np.bool_))
    with pytest.raises(NotEnoughData, match="with 0 frauds"):
        train(honest, "hgb", PARAMS)
