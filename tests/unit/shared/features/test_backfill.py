"""The batch form: the same numbers as the stream's state gives, and as pandas gives on the side."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from centinela.events import TransactionReceived
from centinela.features.assemble import Columns, assemble, attribute_matrix
from centinela.features.backfill import build_features
from centinela.features.layout import FeatureLayout
from centinela.features.state.terminals import TerminalState
from centinela.features.state.users import UserState
from tests.support.tables import rows_of

LAYOUT = FeatureLayout(("v1", "v2"))
START = datetime(2018, 4, 1, tzinfo=UTC)


def simulated(n: int = 3_000, days: int = 60) -> tuple[pd.DataFrame, pd.DataFrame]:
    random = np.random.default_rng(11)
    seconds = np.sort(random.integers(0, days * 86_400, n))
    table = pd.DataFrame(
        {
            "transaction_id": [f"t{k:06d}" for k in range(n)],
            "user_id": [f"u{k}" for k in random.integers(0, 40, n)],
            "terminal_id": [f"m{k}" for k in random.integers(0, 30, n)],
            "occurred_at": [START + timedelta(seconds=int(s)) for s in seconds],
            "amount": random.integers(1, 50_000, n) / 100.0,
            "v1": random.normal(size=n),
        }
    )
    frauds = table[random.random(n) < 0.05]
    labels = pd.DataFrame(
        {
            "transaction_id": frauds["transaction_id"],
            "is_fraud": True,
            "occurred_at": frauds["occurred_at"],
            "reported_at": frauds["occurred_at"] + pd.to_timedelta(random.integers(1, 14, len(frauds)), unit="D"),
        }
    )
    return table, labels


def test_user_features_equal_pandas_rolling_windows() -> None:
    table, labels = simulated()

    features = build_features(table, labels, LAYOUT)

    for _, history in table.groupby("user_id"):
        rolling = history.set_index("occurred_at")["amount"]
        for days in (1, 7, 30):
            window = rolling.rolling(f"{days}D")
            np.testing.assert_array_equal(features.loc[history.index, f"user_count_{days}d"], window.count())
            np.testing.assert_allclose(features.loc[history.index, f"user_mean_{days}d"], window.mean(), rtol=1e-9)
        np.testing.assert_array_equal(features.loc[history.index, "user_max_30d"], window.max())
        np.testing.assert_array_equal(
            features.loc[history.index, "user_seconds_since_last"],
            history["occurred_at"].diff().dt.total_seconds(),
        )


def test_terminal_features_equal_a_count_over_the_whole_table() -> None:
    table, labels = simulated()
    known_at = labels.set_index("transaction_id")["reported_at"] + pd.Timedelta("1h")
    table["known_at"] = table["transaction_id"].map(known_at)

    features = build_features(table, labels, LAYOUT)

    for at in range(0, len(table), 97):
        row = table.iloc[at]
        same = table[table["terminal_id"] == row["terminal_id"]]
        age = row["occurred_at"] - same["occurred_at"]
        for days in (1, 7, 30):
            window = same[(age >= pd.Timedelta("7D")) & (age < pd.Timedelta(days=7 + days))]
            share = (window["known_at"] <= row["occurred_at"]).mean() if len(window) else 0.0
            assert features.iloc[at][f"terminal_count_{days}d"] == len(window)
            assert features.iloc[at][f"terminal_risk_{days}d"] == pytest.approx(share)


def test_the_order_of_rows_does_not_matter_and_the_index_is_kept() -> None:
    table, labels = simulated(500)
    shuffled = table.sample(frac=1.0, random_state=1)

    features = build_features(shuffled, labels.sample(frac=1.0, random_state=2), LAYOUT)

    assert list(features.index) == list(shuffled.index)
    pd.testing.assert_frame_equal(features.sort_index(), build_features(table, labels, LAYOUT))


def test_the_stream_in_small_batches_gives_the_same_bytes() -> None:
    table, labels = simulated(800)
    events = [
        TransactionReceived(
            transaction_id=row.transaction_id,
            occurred_at=row.occurred_at.to_pydatetime(),
            amount=row.amount,
            user_id=row.user_id,
            terminal_id=row.terminal_id,
            attributes={"v1": row.v1},
        )
        for row in rows_of(table)
    ]
    users, terminals = UserState(), TerminalState()
    everything = Columns.of(
        [
            TransactionReceived(
                transaction_id=label.transaction_id, occurred_at=label.reported_at.to_pydatetime(), amount=0
            )
            for label in rows_of(labels)
        ]
    )
    terminals.apply_labels(everything.ids, np.ones(len(everything), bool), everything.times, everything.times)
    parts = []
    for first in range(0, len(events), 7):
        batch = events[first : first + 7]
        columns = Columns.of(batch)
        parts.append(
            assemble(
                columns,
                users.apply(columns.users, columns.times, columns.minor),
                terminals.read(columns.terminals, columns.times),
                attribute_matrix(batch, LAYOUT),
            )
        )
        terminals.apply_activity(columns.terminals, columns.times, columns.ids)

    assert np.concatenate(parts).tobytes() == build_features(table, labels, LAYOUT).to_numpy().tobytes()


def test_missing_identifiers_and_attributes_are_missing_values() -> None:
    table = pd.DataFrame(
        {"transaction_id": ["a", "b"], "occurred_at": [START, START], "amount": [100.5, 1.0], "v1": [0.5, None]}
    )

    features = build_features(
        table, pd.DataFrame(columns=["transaction_id", "is_fraud", "occurred_at", "reported_at"]), LAYOUT
    )

    assert features["amount"].tolist() == [100.5, 1.0]
    assert features.filter(regex="^(user|terminal)_").isna().all(axis=None)
    assert features["v1"].tolist()[0] == 0.5
    assert features["v2"].isna().all()


@pytest.mark.parametrize(
    ("instant", "is_night", "is_weekend"),
    [
        ("2018-03-31T06:59:59Z", 1, 1),
        ("2018-04-01T07:00:00Z", 0, 1),
        ("2018-04-02T00:00:00Z", 1, 0),
        ("2018-04-06T23:59:59Z", 0, 0),
        ("1969-12-27T23:00:00Z", 0, 1),
    ],
)
def test_night_ends_with_the_sixth_hour_and_the_weekend_is_saturday_and_sunday(
    instant: str, is_night: int, is_weekend: int
) -> None:
    moment = datetime.fromisoformat(instant)
    columns = Columns.of([TransactionReceived(transaction_id="a", occurred_at=moment, amount=1)])

    row = assemble(columns, np.zeros((1, 8)), np.zeros((1, 6)), np.zeros((1, 0)))[0]

    assert row[1:3].tolist() == [is_night, is_weekend]


def test_a_repeated_transaction_is_refused() -> None:
    table, labels = simulated(10)

    with pytest.raises(ValueError, match="repeats"):
        build_features(pd.concat([table, table.head(1)]), labels, LAYOUT)


def test_attributes_in_another_order_or_in_part_find_their_columns() -> None:
    events = [
        TransactionReceived(
            transaction_id="a", occurred_at=START, amount=1, attributes={"v2": 2.0, "v1": 1.0, "other": 9.0}
        ),
        TransactionReceived(transaction_id="b", occurred_at=START, amount=1, attributes={"v2": None, "v1": 3}),
        TransactionReceived(transaction_id="c", occurred_at=START, amount=1),
    ]

    np.testing.assert_array_equal(attribute_matrix(events, LAYOUT), [[1, 2], [3, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(attribute_matrix(events[:1], FeatureLayout(("v2",))), [[2.0]])
    np.testing.assert_array_equal(
        attribute_matrix([events[0], events[2]], FeatureLayout(("v3", "v1"))), [[np.nan, 1], [np.nan, np.nan]]
    )
