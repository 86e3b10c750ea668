"""The simulator keeps the Handbook's proportions, and a day is the same whoever asks for it and when."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from centinela.datasets.simulator import COLUMNS, Drift, Profile, Simulation, parse_drift

SMALL = Profile(seed=3, customers=600, terminals=1_200)


@pytest.fixture(scope="module")
def month() -> pd.DataFrame:
    """Thirty days of the Handbook's population."""
    return pd.concat(Simulation(Profile(seed=1)).days(30), ignore_index=True)


def days(profile: Profile, first: int, count: int) -> pd.DataFrame:
    return pd.concat(Simulation(profile).days(count, first), ignore_index=True)


def test_a_day_depends_on_the_profile_and_its_number_only() -> None:
    in_order = list(Simulation(SMALL).days(5))
    alone = Simulation(SMALL).day(4)
    pd.testing.assert_frame_equal(in_order[4], alone)


def test_another_seed_makes_another_stream() -> None:
    other = Simulation(Profile(seed=4, customers=600, terminals=1_200)).day(0)
    assert not Simulation(SMALL).day(0)["amount"].head(50).equals(other["amount"].head(50))


def test_drift_leaves_the_days_before_it_untouched() -> None:
    drifted = Profile(
        seed=3, customers=600, terminals=1_200, drifts=(parse_drift("card_testing@5"), parse_drift("season@5"))
    )
    pd.testing.assert_frame_equal(Simulation(SMALL).day(4), Simulation(drifted).day(4))


def test_a_day_ascends_in_time_within_its_bounds_and_its_ids_are_unique_over_days() -> None:
    start = datetime(2026, 3, 10, tzinfo=UTC)
    frame = days(Profile(seed=3, customers=600, terminals=1_200, start=date(2026, 3, 8)), 2, 2)
    assert tuple(frame.columns) == COLUMNS
    assert frame["occurred_at"].is_monotonic_increasing
    assert frame["occurred_at"].min() >= start
    assert frame["occurred_at"].max() < start + timedelta(days=2)
    assert frame["transaction_id"].is_unique
    assert frame["transaction_id"].is_monotonic_increasing
    assert (frame["amount"] >= 0).all()


def test_the_handbooks_population_makes_its_volume_and_fraud_share(month: pd.DataFrame) -> None:
    assert 9_200 < len(month) / 30 < 10_200
    assert 0.0075 < month["is_fraud"].mean() < 0.0100


def test_the_fraud_share_does_not_depend_on_the_size_of_the_population() -> None:
    frame = days(Profile(seed=2, customers=1_500, terminals=3_000), 0, 40)
    assert 0.006 < frame["is_fraud"].mean() < 0.012


def test_every_transaction_of_a_compromised_terminal_is_fraud_while_it_lasts(month: pd.DataFrame) -> None:
    day = month[month["occurred_at"] < month["occurred_at"].min() + timedelta(days=1)]
    by_terminal = day[day["scenario"].isin([0, 2])].groupby("terminal_id")["scenario"]
    assert (by_terminal.nunique() == 1).all()
    assert day.loc[day["scenario"] == 2, "terminal_id"].nunique() <= 56


def test_stolen_cards_pay_five_times_as_much_on_a_third_of_their_payments(month: pd.DataFrame) -> None:
    taken = month[month["scenario"] == 3]
    usual = month[month["scenario"] == 0].groupby("user_id")["amount"].mean()
    assert 4.3 < (taken["amount"] / taken["user_id"].map(usual)).median() < 5.7
    day = month[month["occurred_at"] < month["occurred_at"].min() + timedelta(days=1)]
    assert 3 <= day.loc[day["scenario"] == 3, "user_id"].nunique() <= 42


def test_amounts_far_above_the_customers_own_are_fraud(month: pd.DataFrame) -> None:
    genuine = month[month["scenario"] == 0]
    mean = genuine.groupby("user_id")["amount"].mean()
    odd = month[month["scenario"] == 1]
    assert len(odd) > 100
    assert (odd["amount"] / odd["user_id"].map(mean)).median() > 2.5


def test_frauds_are_reported_within_about_a_week_and_some_never(month: pd.DataFrame) -> None:
    frauds, genuine = month[month["is_fraud"]], month[~month["is_fraud"]]
    lag = (frauds["reported_at"] - frauds["occurred_at"]).dropna().dt.total_seconds() / 86_400
    assert genuine["reported_at"].isna().all()
    assert lag.min() >= 4.0
    assert lag.max() <= 7.5
    assert 5.5 < lag.mean() < 6.5
    assert 0.02 < frauds["reported_at"].isna().mean() < 0.08


def test_card_testing_comes_in_bursts_of_tiny_payments_on_one_card() -> None:
    profile = Profile(seed=5, customers=1_500, terminals=3_000, drifts=(Drift("card_testing", 10),))
    frame = days(profile, 8, 32)
    tests = frame[frame["scenario"] == 4]
    assert tests["occurred_at"].min() >= datetime(2026, 1, 11, tzinfo=UTC)
    assert tests["amount"].between(0.5, 4).all()
    assert tests["is_fraud"].all()
    ordered = tests.sort_values(["user_id", "occurred_at"])
    apart = (ordered["user_id"] != ordered["user_id"].shift()) | (ordered["occurred_at"].diff() > timedelta(minutes=20))
    bursts = ordered.groupby(np.cumsum(apart))["occurred_at"].agg(["count", "min", "max"])
    assert bursts["count"].between(8, 20).all()
    assert ((bursts["max"] - bursts["min"]) <= timedelta(minutes=20)).all()
    assert 20 < len(bursts) < 60, "1.2 a day over 30 days"


def test_a_season_raises_the_volume_by_half_for_four_weeks() -> None:
    profile = Profile(seed=3, customers=600, terminals=1_200, drifts=(parse_drift("season@10"),))
    simulation, plain = Simulation(profile), Simulation(SMALL)
    ratio = sum(len(simulation.day(n)) for n in range(10, 38)) / sum(len(plain.day(n)) for n in range(10, 38))
    assert 1.45 < ratio < 1.55
    pd.testing.assert_frame_equal(simulation.day(38), plain.day(38))


def test_covariate_drift_raises_amounts_and_moves_shopping_later_over_three_weeks() -> None:
    simulation, plain = (
        Simulation(Profile(seed=3, customers=600, terminals=1_200, drifts=(parse_drift("covariate@5"),))),
        Simulation(SMALL),
    )

    def usual(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[frame["scenario"] == 0]

    def hour(frame: pd.DataFrame) -> float:
        return float((frame["occurred_at"].dt.hour + frame["occurred_at"].dt.minute / 60).mean())

    ratio = [usual(simulation.day(n))["amount"].mean() / usual(plain.day(n))["amount"].mean() for n in (5, 15, 30)]
    assert 0.95 < ratio[0] < ratio[1] < ratio[2]
    assert 1.4 < ratio[2] < 1.6
    assert 1.2 < hour(simulation.day(30)) - hour(plain.day(30)) < 3.2


@pytest.mark.parametrize(
    ("text", "drift"),
    [
        ("card_testing@60", Drift("card_testing", 60)),
        ("season@30", Drift("season", 30, 58)),
        ("season@30-40", Drift("season", 30, 40)),
        ("covariate@7:1.5", Drift("covariate", 7, None, 1.5)),
    ],
)
def test_a_drift_is_written_in_a_few_characters(text: str, drift: Drift) -> None:
    assert parse_drift(text) == drift


@pytest.mark.parametrize("text", ["card_testing", "storm@3", "season@x", "season@9-9", "season@-3", "card_testing@3:"])
def test_a_drift_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"drift|ends before"):
        parse_drift(text)


@pytest.mark.parametrize(("seed", "customers", "terminals"), [(-1, 1, 1), (0, 0, 1), (0, 1, 0)])
def test_a_population_that_cannot_be_is_refused(seed: int, customers: int, terminals: int) -> None:
    with pytest.raises(ValueError, match=r"seed|at least one"):
        Profile(seed=seed, customers=customers, terminals=terminals)
