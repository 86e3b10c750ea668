"""Performance on late labels against scikit-learn and a naive reading of the definitions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from centinela.events import LabelReported
from centinela.features.keys import MISSING_ID, hash_id, hash_ids
from centinela.model.metrics import average_precision, average_precision_interval, card_precision
from centinela.model.panes import PaneRows, pane_rows
from centinela_drift.decision.performance import Labels, measure

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY_MS = 86_400_000


def label(name: str, *, fraud: bool = True, reported_day: float, occurred_day: float = 0.0) -> LabelReported:
    return LabelReported(
        transaction_id=name,
        is_fraud=fraud,
        occurred_at=START + timedelta(days=occurred_day),
        reported_at=START + timedelta(days=reported_day),
    )


def ms(day: float) -> int:
    return round(START.timestamp() * 1000 + day * DAY_MS)


def rows_of(
    names: Sequence[str],
    scores: Sequence[float],
    users: Sequence[str | None] | None = None,
    days: Sequence[float] | None = None,
) -> PaneRows:
    n = len(names)
    return pane_rows(
        hash_ids(names),
        hash_ids(users or [f"u{i}" for i in range(n)]),
        np.array([ms(d) for d in days or [0.0] * n]),
        np.array(scores),
        np.zeros(n, bool),
    )


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=60).filter(
        lambda pairs: any(f for f, _ in pairs)
    )
)
def test_average_precision_is_sklearns_ties_included(pairs: list[tuple[bool, int]]) -> None:
    is_fraud, scores = np.array([f for f, _ in pairs]), np.array([s / 20 for _, s in pairs])
    assert average_precision(is_fraud, scores) == pytest.approx(average_precision_score(is_fraud, scores))


def test_the_interval_of_average_precision_narrows_with_frauds_and_stays_within_bounds() -> None:
    few, many = average_precision_interval(0.76, 20), average_precision_interval(0.76, 2_000)
    assert 0 < few[0] < many[0] < 0.76 < many[1] < few[1] < 1
    for value in (0.0, 1.0):
        low, high = average_precision_interval(value, 5)
        assert 0 < low < high < 1


def test_a_label_counts_from_its_report_on_and_not_before() -> None:
    labels = Labels()
    labels.add(label("a", reported_day=9))
    ids = hash_ids(["a", "b"])
    assert labels.frauds_known(ids, ms(8.999)).tolist() == [False, False]
    assert labels.frauds_known(ids, ms(9)).tolist() == [True, False]


def test_the_label_reported_last_decides_whatever_arrives_first() -> None:
    labels = Labels()
    labels.add(label("a", fraud=False, reported_day=12))
    labels.add(label("a", reported_day=9))
    labels.add(label("a", reported_day=9))
    ids = hash_ids(["a"])
    assert labels.frauds_known(ids, ms(10)).tolist() == [True]
    assert labels.frauds_known(ids, ms(12)).tolist() == [False]


def test_labels_expire_with_their_transactions() -> None:
    labels = Labels()
    labels.add(label("old", reported_day=20, occurred_day=1))
    labels.add(label("new", reported_day=20, occurred_day=5))
    labels.expire(ms(5))
    assert labels.frauds_known(hash_ids(["old", "new"]), ms(30)).tolist() == [False, True]
    assert len(labels) == 1


def test_unlabelled_transactions_count_as_genuine_and_missing_labels_lower_what_is_measured() -> None:
    rng = np.random.default_rng(11)
    names = [f"t{i}" for i in range(4_000)]
    fraud = rng.random(4_000) < 0.03
    scores = np.clip(rng.normal(np.where(fraud, 0.7, 0.2), 0.15), 0, 1)
    rows = rows_of(names, scores.tolist())
    reported = fraud & (rng.random(4_000) < 0.6)
    labels = Labels()
    for i in np.flatnonzero(reported):
        labels.add(label(names[i], reported_day=3))

    known = labels.frauds_known(rows["id"], ms(7))
    measured = measure(rows, known, start_ms=ms(0))
    assert measured.count == 4_000
    assert measured.frauds == reported.sum()
    assert measured.average_precision == pytest.approx(average_precision_score(reported, rows["score"]))
    assert measured.average_precision < average_precision_score(fraud, scores)


def test_without_a_known_fraud_nothing_is_measured() -> None:
    measured = measure(rows_of(["a"], [0.5]), np.array([False]), start_ms=ms(0))
    assert (measured.count, measured.frauds, measured.average_precision) == (1, 0, None)


def test_card_precision_takes_the_most_suspicious_cards_of_each_day_once() -> None:
    # day 0: A (fraud, .9), B (.8), C (fraud, .1); day 1: A again (.95, found already), C (fraud, .7), D (.6)
    names, users = list("abcdefg"), ["A", "B", "C", "A", "C", "D", None]
    rows = rows_of(names, [0.9, 0.8, 0.1, 0.95, 0.7, 0.6, 0.99], users, [0.1, 0.2, 0.3, 1.1, 1.2, 1.3, 1.4])
    is_fraud = np.array([True, False, True, True, True, False, True])
    days = (rows["time"] - ms(0)) // DAY_MS
    cards, known = rows["user"], rows["user"] != MISSING_ID
    assert card_precision(is_fraud, rows["score"], cards, known, days, 2) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert card_precision(is_fraud, rows["score"], cards, known, days, 100) == pytest.approx((2 / 100 + 0 / 100) / 2)


def test_card_precision_needs_cards() -> None:
    rows = rows_of(["a"], [0.9], [None])
    assert rows["user"][0] == MISSING_ID
    assert np.isnan(
        card_precision(np.array([True]), rows["score"], rows["user"], np.array([False]), np.array([0]), 100)
    )
    assert measure(rows, np.array([True]), start_ms=ms(0)).card_precision is None


def test_the_hash_joins_labels_and_panes() -> None:
    assert rows_of(["tx-1"], [0.1])["id"][0] == hash_id("tx-1")
