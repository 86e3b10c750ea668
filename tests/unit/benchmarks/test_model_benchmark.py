"""The model benchmark's protocol: nothing of the future gets in, known cards are left out, and a leak is seen."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from model import benchmark_rows, measured, table
from model_data import DELAY_DAYS, Quality, Stream, quality, reports_of, test_week, to_stream, training_set

from centinela.datasets.simulator import Profile, Simulation
from centinela.features.backfill import build_features
from centinela.features.layout import FeatureLayout
from centinela_trainer.params import HgbParams, LrParams, Params, RfParams, TrainParams

test_week.__test__ = False
START = datetime(2025, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TEST = START + 63 * DAY
PARAMS = Params(
    train=TrainParams(hgb=HgbParams(max_iter=30), rf=RfParams(n_estimators=10, n_jobs=1), lr=LrParams(max_iter=200))
)


@pytest.fixture(scope="module")
def transactions() -> pd.DataFrame:
    simulation = Simulation(Profile(seed=5, customers=300, terminals=600, start=date(2025, 1, 1)))
    days = pd.concat([simulation.day(number) for number in range(70)], ignore_index=True)
    return days[["transaction_id", "user_id", "terminal_id", "occurred_at", "amount", "is_fraud"]].sort_values(
        ["occurred_at", "transaction_id"], ignore_index=True
    )


@pytest.fixture(scope="module")
def stream(transactions: pd.DataFrame) -> Stream:
    made: Stream = to_stream(transactions, reports_of(transactions))
    return made


def test_the_training_set_is_the_newest_days_whose_labels_are_in(transactions: pd.DataFrame, stream: Stream) -> None:
    dataset = training_set(stream, TEST, 7)
    wanted = transactions[
        (transactions["occurred_at"] > TEST - 14 * DAY) & (transactions["occurred_at"] <= TEST - 7 * DAY)
    ]
    assert dataset.transaction_ids.tolist() == wanted["transaction_id"].tolist()
    assert dataset.is_fraud.tolist() == wanted["is_fraud"].tolist()


def test_on_each_test_day_the_cards_known_by_then_are_left_out_and_no_others(
    transactions: pd.DataFrame, stream: Stream
) -> None:
    expected = []
    for number in range(7):
        morning = TEST + number * DAY
        seen = transactions[
            transactions["is_fraud"]
            & (transactions["occurred_at"] >= TEST - 14 * DAY)
            & (transactions["occurred_at"] < morning - DELAY_DAYS * DAY)
        ]
        today = transactions[(transactions["occurred_at"] >= morning) & (transactions["occurred_at"] < morning + DAY)]
        expected.append(today[~today["user_id"].isin(set(seen["user_id"]))])
    week = test_week(stream, TEST)
    wanted = pd.concat(expected)
    assert week.cards.tolist() == wanted["user_id"].tolist()
    assert week.matrix[:, 0].tolist() == wanted["amount"].tolist()
    assert 0 < len(wanted) < (transactions["occurred_at"] >= TEST).sum()


def test_features_do_not_change_with_what_happens_or_is_reported_later(transactions: pd.DataFrame) -> None:
    layout, reports = FeatureLayout(), reports_of(transactions)
    features = build_features(transactions, reports, layout)
    random = np.random.default_rng(3)
    for now in (START + days * DAY for days in (40, 51.3, 62.7)):
        seen = (transactions["occurred_at"] <= now).to_numpy()
        later, told = transactions.copy(), reports.copy()
        later.loc[~seen, "amount"] = random.uniform(0, 1_000, (~seen).sum())
        later.loc[~seen, "user_id"] = random.permutation(later.loc[~seen, "user_id"])
        unknown = (told["reported_at"] > now).to_numpy()
        told.loc[unknown, "is_fraud"] = False
        invented = transactions[random.random(len(transactions)) < 0.2]
        invented = invented[["transaction_id", "occurred_at"]].assign(is_fraud=True, reported_at=now + DAY / 1_000)
        told = pd.concat([told, invented[~invented["transaction_id"].isin(told["transaction_id"])]], ignore_index=True)
        other = build_features(later, told, layout)
        np.testing.assert_array_equal(other[seen].to_numpy(), features[seen].to_numpy())
        assert not other[~seen].equals(features[~seen])


def test_shuffled_labels_teach_nothing_and_true_ones_do(transactions: pd.DataFrame, stream: Stream) -> None:
    shuffled = transactions.assign(is_fraud=np.random.default_rng(11).permutation(transactions["is_fraud"]))
    nonsense = to_stream(shuffled, reports_of(shuffled))
    found = {}
    for name, each in (("true", stream), ("shuffled", nonsense)):
        week = test_week(each, TEST)
        found[name] = (
            measured("hgb", PARAMS, training_set(each, TEST, 28), week)["average_precision"] / week.is_fraud.mean()
        )
    assert found["shuffled"] < 3
    assert found["true"] > 10


def test_a_feature_that_knows_the_label_is_flagged_and_an_honest_set_is_not(stream: Stream) -> None:
    dataset, week = training_set(stream, TEST, 28), test_week(stream, TEST)
    leaky = dataclasses.replace(
        dataset, names=(*dataset.names, "chargeback"), matrix=np.column_stack([dataset.matrix, dataset.is_fraud])
    )
    told = dataclasses.replace(week, matrix=np.column_stack([week.matrix, week.is_fraud]))
    assert measured("hgb", PARAMS, leaky, told)["leak_suspected"]
    assert not measured("hgb", PARAMS, dataset, week)["leak_suspected"]


def test_scores_are_judged_by_the_three_figures(stream: Stream) -> None:
    week = test_week(stream, TEST)
    perfect = quality(week, week.is_fraud.astype(float))
    assert perfect.average_precision == perfect.roc_auc == 1
    assert perfect.leaks
    assert quality(week, np.full(len(week.is_fraud), 0.5)) == Quality(
        pytest.approx(week.is_fraud.mean()), 0.5, pytest.approx(0.0, abs=0.1)
    )


def test_every_kind_and_length_is_measured_and_the_default_is_marked(stream: Stream) -> None:
    rows = benchmark_rows(stream, PARAMS, TEST, lengths=(14, 28))
    assert [(row["days"], row["kind"], row["features"]) for row in rows] == [
        (14, "hgb", 17),
        (14, "rf", 17),
        (14, "lr", 17),
        (14, "hgb", 3),
        (28, "hgb", 17),
        (28, "rf", 17),
        (28, "lr", 17),
    ]
    text = table(rows, "hgb")
    assert text.count("**hgb**") == 3
    assert f"{rows[0]['average_precision']:.3f}" in text
