"""No label before its time, each transaction once, and the same content always the same digest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from centinela.times import to_us
from centinela_trainer.snapshots.format import dataset_digest
from centinela_trainer.training.dataset import Dataset, assemble, card_folds, split_by_time

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MATURITY = 7 * DAY
NAMES = ("amount", "count", "empty")


def predictions(*rows: tuple[str, float, float]) -> pa.Table:
    """Rows of (id, day, amount)."""
    return pa.table(
        {
            "transaction_id": [row[0] for row in rows],
            "user_id": pa.array([f"u{row[0]}" for row in rows], pa.string()),
            "occurred_us": pa.array([to_us(START + row[1] * DAY) for row in rows], pa.int64()),
            "amount": [row[2] for row in rows],
            "count": pa.array([None if row[2] < 0 else 1.0 for row in rows], pa.float64()),
        }
    )


def labels(*rows: tuple[str, bool, float]) -> pa.Table:
    """Rows of (id, is_fraud, day of the report)."""
    return pa.table(
        {
            "transaction_id": pa.array([row[0] for row in rows], pa.string()),
            "is_fraud": pa.array([row[1] for row in rows], pa.bool_()),
            "reported_us": pa.array([to_us(START + row[2] * DAY) for row in rows], pa.int64()),
        }
    )


def known(table: pa.Table, reports: pa.Table, day: float, window: timedelta = 100 * DAY) -> Dataset:
    return assemble(table, reports, NAMES, as_of=START + day * DAY, maturity=MATURITY, window=window)


def test_a_label_reported_after_as_of_is_unknown() -> None:
    table, reports = predictions(("a", 0, 1), ("b", 0, 1)), labels(("a", True, 8), ("b", True, 8.001))
    assert known(table, reports, 8).is_fraud.tolist() == [True, False]


@pytest.mark.parametrize("day", np.arange(0, 25, 0.5))
def test_a_set_as_of_any_day_equals_the_set_made_when_that_day_was_today(day: float) -> None:
    random = np.random.default_rng(5)
    rows = [(f"t{n:03d}", float(when), float(n)) for n, when in enumerate(np.sort(random.uniform(0, 20, 200)))]
    reports = [(name, bool(random.random() < 0.8), when + float(random.uniform(0, 12))) for name, when, _ in rows[::3]]
    today = known(
        predictions(*(row for row in rows if row[1] <= day)), labels(*(row for row in reports if row[2] <= day)), day
    )
    later = known(predictions(*rows), labels(*reports), day)
    assert dataset_digest(later) == dataset_digest(today)
    assert len(later) == sum(row[1] <= day - 7 for row in rows)


def test_only_mature_transactions_are_used_even_where_a_fraud_is_known_early() -> None:
    table, reports = predictions(("old", 1, 1), ("young", 5, 1)), labels(("young", True, 6))
    assert known(table, reports, 10).transaction_ids.tolist() == ["old"]


def test_a_mature_transaction_without_a_label_counts_as_genuine() -> None:
    assert known(predictions(("a", 0, 1)), labels(), 8).is_fraud.tolist() == [False]


def test_the_last_report_known_holds() -> None:
    reports = labels(("a", True, 2), ("a", False, 5))
    assert known(predictions(("a", 0, 1)), reports, 8).is_fraud.tolist() == [False]


def test_repeated_transactions_are_used_once_in_time_order() -> None:
    table = predictions(("b", 1, 5), ("a", 1, 6), ("c", 0, 7), ("b", 1, 5))
    dataset = known(table, labels(), 20)
    assert dataset.transaction_ids.tolist() == ["c", "a", "b"]
    assert dataset.matrix[:, 0].tolist() == [7, 6, 5]


def test_older_than_the_window_is_left_out() -> None:
    table = predictions(("a", 0, 1), ("b", 5, 1))
    assert known(table, labels(), 12, window=4 * DAY).transaction_ids.tolist() == ["b"]


def test_missing_values_stay_missing_and_an_empty_column_is_not_present() -> None:
    dataset = known(predictions(("a", 0, 1), ("b", 1, -1)), labels(), 20)
    np.testing.assert_array_equal(dataset.matrix, [[1, 1, np.nan], [-1, np.nan, np.nan]])
    assert dataset.present() == ("amount", "count")
    np.testing.assert_array_equal(dataset.columns(("count", "amount")), [[1, 1], [np.nan, -1]])


def test_the_digest_tells_any_change_of_content_but_not_of_order() -> None:
    one = known(predictions(("a", 0, 1), ("b", 1, 2)), labels(("a", True, 3)), 20)
    same = known(predictions(("b", 1, 2), ("a", 0, 1)), labels(("a", True, 3)), 20)
    assert dataset_digest(one) == dataset_digest(same)
    others = [
        known(predictions(("a", 0, 1), ("b", 1, 2.5)), labels(("a", True, 3)), 20),
        known(predictions(("a", 0, 1), ("b", 1, 2)), labels(), 20),
        known(predictions(("a", 0, 1)), labels(("a", True, 3)), 20),
    ]
    assert len({dataset_digest(one), *(dataset_digest(other) for other in others)}) == 4


def ten_days() -> Dataset:
    return known(predictions(*((f"t{n:04d}", n / 100, 1.0) for n in range(1_000))), labels(), 100, window=200 * DAY)


def test_the_newest_days_are_the_test_set_and_all_training_rows_lie_before_them() -> None:
    dataset = ten_days()
    split = split_by_time(dataset, test_days=2, max_test_share=0.5, gap_days=0)
    assert len(split.train) + len(split.test) == 1_000
    assert len(split.test) == 200
    assert dataset.times_us[split.train].max() < split.start_us <= dataset.times_us[split.test].min()


def test_the_gap_is_left_out_of_training() -> None:
    split = split_by_time(ten_days(), test_days=2, max_test_share=0.5, gap_days=3)
    assert (len(split.train), len(split.test)) == (500, 200)


def test_a_short_history_keeps_most_of_its_rows_for_training() -> None:
    split = split_by_time(ten_days(), test_days=30, max_test_share=0.3, gap_days=0)
    assert (len(split.train), len(split.test)) == (700, 300)


def test_all_rows_of_a_card_are_in_one_fold_and_folds_are_stable() -> None:
    groups = np.array(["a", "b", "c", "a", "d", "b"] * 50, dtype=object)
    folds = card_folds(groups, 2, seed=7)
    assert all(len(set(folds[groups == card])) == 1 for card in "abcd")
    assert set(card_folds(np.array([f"u{n}" for n in range(100)], dtype=object), 2, seed=7)) == {0, 1}
    np.testing.assert_array_equal(folds, card_folds(groups, 2, seed=7))
