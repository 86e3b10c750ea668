"""Random (user, time) pairs: Feast, online and offline, gives the very values of the served vectors as of that time.

What is expected is looked up row by row in the frame that ``build_features`` gave, by nothing that Feast or DuckDB
computed.

By hand, with more pairs and with a real stream (columns of the Fraud Detection Handbook)::

    CENTINELA_TEST_FEAST_PAIRS=10000 CENTINELA_TEST_FEAST_STREAM=handbook.parquet pytest -s
    tests/integration/test_featurestore_agreement.py
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from centinela.events import TransactionScored
from centinela.features.backfill import build_features
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.featurestore.push import FeaturePusher
from centinela.featurestore.repository import apply, open_store
from centinela.kafka.port import TopicPartition
from centinela.testing.clock import FixedClock
from centinela_local.paths import CHECKOUT
from centinela_predictor.feast.sink import served_rows
from centinela_trainer.archive.arrow_tables import Row, verdict_tables
from centinela_trainer.archive.store import ArchiveStore
from tests.support.tables import rows_of

PAIRS = int(os.environ.get("CENTINELA_TEST_FEAST_PAIRS", "300"))
STREAM = os.environ.get("CENTINELA_TEST_FEAST_STREAM")
READS = 50
"""Pairs read online between two pushes."""
REPO = CHECKOUT / "deploy" / "feast"
LAYOUT = FeatureLayout()
TTL = timedelta(days=1)
BATCH = 1_000
FEATURES = {
    "user_id": {
        "avg_transaction_amount": "user_mean_30d",
        "transaction_count_7d": "user_count_7d",
        "max_transaction_amount": "user_max_30d",
    },
    "terminal_id": {
        f"terminal_{what}_{days}d": f"terminal_{what}_{days}d" for what in ("count", "risk") for days in (1, 7, 30)
    },
}


class Traffic:
    """A log of transactions, the vectors served of it, and what stands in them as of a place in the log and a time."""

    def __init__(self, transactions: pd.DataFrame, labels: pd.DataFrame) -> None:
        self.log = transactions.reset_index(drop=True)
        self.times = self.log["occurred_at"].to_list()
        self.features = build_features(self.log, labels, LAYOUT, order="log")
        self._columns = {name: self.features[name].to_numpy() for names in FEATURES.values() for name in names.values()}
        self._rows = {key: self.log.groupby(key).indices for key in FEATURES}

    def expected(
        self, key: str, entity: str | None, at: pd.Timestamp, before: int | None = None
    ) -> dict[str, float | None]:
        """By feature, for *entity* at *at*, of the first *before* transactions of the log."""
        seen = [n for n in self._rows[key].get(entity, ()) if self.times[n] <= at and (before is None or n < before)]
        if not seen or at - max(self.times[n] for n in seen) > TTL:
            return dict.fromkeys(FEATURES[key])
        last = max(seen, key=lambda n: (self.times[n], n))
        return {feature: float(self._columns[column][last]) for feature, column in FEATURES[key].items()}

    def verdicts(self, first: int, last: int) -> list[TransactionScored]:
        part = self.log.iloc[first:last]
        vectors = pack_rows(self.features.iloc[first:last].to_numpy())
        return [
            TransactionScored(
                transaction_id=row.transaction_id,
                user_id=row.user_id,
                terminal_id=row.terminal_id,
                occurred_at=row.occurred_at.to_pydatetime(),
                amount=row.amount,
                decision="approve",
                variant="none",
                origin="history",
                feature_set=LAYOUT.id,
                features=vector,
                scored_at=row.occurred_at.to_pydatetime(),
            )
            for row, vector in zip(rows_of(part), vectors, strict=True)
        ]

    def archive(self, data: Path) -> None:
        store = ArchiveStore(data / "archive")
        step = 20_000 if STREAM else 1_000
        for first in range(0, len(self.log), step):
            rows = [
                Row("predictions", 0, first + n, verdict)
                for n, verdict in enumerate(self.verdicts(first, first + step))
            ]
            store.write("predictions", TopicPartition("predictions", 0), first, rows[-1].offset, verdict_tables(rows))


def random_traffic(count: int = 3_000) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Forty days with ties, late transactions, and some without user or terminal; labels after a week."""
    random = np.random.default_rng(4)
    minutes = np.sort(random.integers(0, 40 * 24 * 60 // 5, count)) * 5
    minutes[1::7] = minutes[::7][: len(minutes[1::7])]
    order = np.argsort(
        np.arange(count) + np.where(random.random(count) < 0.05, random.integers(0, 300, count), 0), kind="stable"
    )
    table = pd.DataFrame(
        {
            "transaction_id": [f"t{n:06d}" for n in range(count)],
            "user_id": [
                None if draw < 0.02 else f"u{user}"
                for draw, user in zip(random.random(count), random.integers(0, 60, count), strict=True)
            ],
            "terminal_id": [
                None if draw < 0.02 else f"m{place}"
                for draw, place in zip(random.random(count), random.integers(0, 25, count), strict=True)
            ],
            "occurred_at": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(minutes, unit="min"),
            "amount": random.gamma(2, 30, count).round(2),
        }
    ).iloc[order]
    return table, _reported(table[random.random(count) < 0.1])


def handbook(path: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The Handbook's stream at *path*."""
    raw = pd.read_parquet(path)
    table = pd.DataFrame(
        {
            "transaction_id": raw["TRANSACTION_ID"].astype(str).str.zfill(8),
            "user_id": raw["CUSTOMER_ID"].astype(str),
            "terminal_id": raw["TERMINAL_ID"].astype(str),
            "occurred_at": pd.to_datetime(raw["TX_DATETIME"]).dt.tz_localize("UTC"),
            "amount": raw["TX_AMOUNT"].astype(float),
        }
    ).sort_values(["occurred_at", "transaction_id"])
    return table, _reported(table[raw.loc[table.index, "TX_FRAUD"] == 1])


def _reported(frauds: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "transaction_id": frauds["transaction_id"],
            "is_fraud": True,
            "occurred_at": frauds["occurred_at"],
            "reported_at": frauds["occurred_at"] + pd.Timedelta(days=6.5),
        }
    )


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return Traffic(*(handbook(STREAM) if STREAM else random_traffic()))


@pytest.fixture(scope="module")
def data(traffic: Traffic, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    traffic.archive(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(traffic: Traffic) -> pd.DataFrame:
    """Entities (a stranger among a hundred) and times over the whole stream and a bit more, half of them right at a
    transaction's time."""
    random = np.random.default_rng(11)
    first, last = traffic.log["occurred_at"].min(), traffic.log["occurred_at"].max()
    at = first + pd.to_timedelta(
        random.integers(-86_400_000_000, int((last - first) / timedelta(microseconds=1)) + 86_400_000_000, PAIRS),
        unit="us",
    )
    rows = random.integers(0, len(traffic.log), PAIRS)
    exact = traffic.log["occurred_at"].to_numpy()[rows]
    on_the_spot = random.random(PAIRS) < 0.5
    chosen = {
        key: np.where(
            random.random(PAIRS) < 0.01,
            "stranger",
            random.permutation(traffic.log[key].dropna().unique())[
                random.integers(0, traffic.log[key].nunique(), PAIRS)
            ],
        )
        for key in FEATURES
    }
    of_the_spot = {key: traffic.log[key].to_numpy()[rows] for key in FEATURES}
    return pd.DataFrame(
        {
            **{key: np.where(on_the_spot, of_the_spot[key], chosen[key]) for key in FEATURES},
            "event_timestamp": pd.to_datetime(np.where(on_the_spot, exact, at.to_numpy()), utc=True),
            "row": np.arange(PAIRS),
        }
    )


def differing(expected: dict[str, float | None], given: Mapping[Any, Any]) -> Iterator[str]:
    """The features whose value is not the expected one, bit by bit."""
    for feature, value in expected.items():
        found = given[feature]
        found = None if found is None or (isinstance(found, float) and math.isnan(found)) else found
        if found != value:
            yield f"{feature}: {found} instead of {value}"


def test_offline_every_pair_gets_what_was_served_as_of_its_time(
    traffic: Traffic, data: Path, pairs: pd.DataFrame
) -> None:
    feast = open_store(REPO, data)
    apply(feast, REPO, data)
    answer = feast.get_historical_features(
        entity_df=pairs, features=feast.get_feature_service("fraud_detection")
    ).to_df()
    assert sorted(answer["row"]) == list(range(PAIRS))
    wrong, valued = [], 0
    for given in answer.to_dict("records"):
        for key in FEATURES:
            expected = traffic.expected(key, given[key], given["event_timestamp"])
            valued += None not in expected.values()
            wrong += [(given[key], given["event_timestamp"], problem) for problem in differing(expected, given)]
    print(f"\noffline: {PAIRS} pairs, {len(wrong)} values differ; {valued} of {2 * PAIRS} rows of a view had values")
    assert not wrong
    assert PAIRS // 4 < valued < 2 * PAIRS, "the pairs try both: rows with values and rows without"


def test_online_every_pair_gets_what_was_served_up_to_then(
    traffic: Traffic, tmp_path: Path, pairs: pd.DataFrame
) -> None:
    feast = open_store(REPO, tmp_path)
    apply(feast, REPO, tmp_path)
    pusher = FeaturePusher(feast)
    online = cast("Any", feast._get_provider().online_store)
    service = feast.get_feature_service("fraud_detection")
    stops = np.linspace(len(traffic.log) // 10, len(traffic.log), -(-PAIRS // READS)).astype(int)
    newest, pushed, wrong, valued = traffic.times[0], 0, [], 0
    for number, stop in enumerate(stops):
        for first in range(pushed, stop, BATCH):
            pusher.push(served_rows(traffic.verdicts(first, min(first + BATCH, stop)), {LAYOUT.id: LAYOUT}))
        newest, pushed = max([newest, *traffic.times[pushed:stop]]), stop
        online.clock = FixedClock(newest.to_pydatetime())
        asked = pairs.iloc[number * READS : (number + 1) * READS]
        rows = [
            {key: row[key] if isinstance(row[key], str) else None for key in FEATURES}
            for row in asked.to_dict("records")
        ]
        answer = feast.get_online_features(features=service, entity_rows=rows).to_dict()
        for n, row in enumerate(rows):
            for key in FEATURES:
                expected = traffic.expected(key, row[key], newest, before=stop)
                valued += None not in expected.values()
                wrong += [
                    (row[key], newest, problem)
                    for problem in differing(expected, {name: values[n] for name, values in answer.items()})
                ]
    print(
        f"\nonline: {PAIRS} pairs at {len(stops)} times, {len(wrong)} values differ; {valued} of {2 * PAIRS} rows of a"
        " view had values"
    )
    assert not wrong
    assert PAIRS // 4 < valued < 2 * PAIRS, "the pairs try both: rows with values and rows without"
