"""Both online stores, by the calls that Feast's users make: event time decides what is kept and what is served.

Redis is tried where ``redis-server`` is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client import REGISTRY

from centinela.errors import DependencyUnavailable
from centinela.featurestore.push import FeaturePusher
from centinela.featurestore.repository import apply, open_store
from centinela.testing.clock import FixedClock
from centinela_local.paths import CHECKOUT
from centinela_local.processes.ports import free_port, is_taken

REPO = CHECKOUT / "deploy" / "feast"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY, TICK = timedelta(days=1), timedelta(microseconds=1)
USER_VIEW = "user_transaction_features"
MEAN, COUNT = f"{USER_VIEW}:avg_transaction_amount", f"{USER_VIEW}:transaction_count_7d"
REDIS_SERVER = shutil.which("redis-server")
STORES = ["sqlite", *(["redis"] if REDIS_SERVER else [])]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``host:port`` of a Redis of this run's own."""
    port = free_port()
    server = subprocess.Popen(
        [str(REDIS_SERVER), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        cwd=tmp_path_factory.mktemp("redis"),
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while not is_taken(port):
            assert time.monotonic() < deadline, "redis-server does not listen"
            assert server.poll() is None, "redis-server ended"
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


class Features:
    """The feature store of one test, which reads at ``clock``."""

    def __init__(self, data: Path, redis: str | None) -> None:
        self.data, self.redis, self.clock = data, redis, FixedClock(NOW)
        self.feast = open_store(REPO, data, redis)
        apply(self.feast, REPO, data)
        self.online = cast("Any", self.feast._get_provider().online_store)
        self.online.clock = self.clock
        if redis:
            self.online._get_client(self.feast.config.online_store).flushall()

    def push(self, *rows: tuple[str, datetime, float]) -> None:
        """(user, event time, mean) each."""
        FeaturePusher(self.feast).push(served(*rows))

    def mean(self, *users: str | None) -> list[float | None]:
        answer = self.feast.get_online_features(
            features=[MEAN], entity_rows=[{"user_id": user} for user in users]
        ).to_dict()
        return list(answer["avg_transaction_amount"])


def served(*rows: tuple[str | None, datetime, float]) -> pd.DataFrame:
    users, times, means = (list(column) for column in zip(*rows, strict=True))
    return pd.DataFrame(
        {
            "user_id": users,
            "terminal_id": "m1",
            "occurred_at": pd.to_datetime(times, utc=True),
            "scored_at": pd.Timestamp(NOW),
            "user_mean_30d": means,
            "user_count_7d": 1.0,
            "user_max_30d": means,
            "terminal_count_7d": means,
        }
    )


@pytest.fixture(params=STORES)
def features(request: pytest.FixtureRequest, tmp_path: Path) -> Features:
    return Features(tmp_path, request.getfixturevalue("redis_server") if request.param == "redis" else None)


def rows_counted(outcome: str) -> float:
    return (
        REGISTRY.get_sample_value("centinela_feature_store_rows_total", {"view": USER_VIEW, "outcome": outcome}) or 0.0
    )


def test_a_late_event_never_overwrites_a_newer_value_not_by_a_microsecond_nor_in_one_batch(features: Features) -> None:
    late = rows_counted("late")
    features.push(("u1", NOW, 2.0))
    features.push(("u1", NOW - TICK, 1.0))
    assert features.mean("u1") == [2.0]
    features.push(("u1", NOW + TICK, 4.0), ("u1", NOW - TICK, 3.0))
    assert features.mean("u1") == [4.0]
    assert rows_counted("late") == late + 1


def test_of_events_at_one_instant_the_last_in_the_log_counts(features: Features) -> None:
    features.push(("u1", NOW, 1.0), ("u1", NOW, 2.0))
    assert features.mean("u1") == [2.0]
    features.push(("u1", NOW, 3.0))
    assert features.mean("u1") == [3.0]


def test_a_batch_pushed_again_from_any_earlier_point_ends_in_the_same_values(features: Features) -> None:
    log = [(f"u{n % 3}", NOW - timedelta(minutes=n * 7 % 5), float(n)) for n in range(12)]
    features.push(*log)
    once = features.mean("u0", "u1", "u2")
    for again in (0, 4, 9):
        features.push(*log[again:])
        assert features.mean("u0", "u1", "u2") == once


def test_a_value_is_served_up_to_its_time_to_live_and_not_beyond(features: Features) -> None:
    features.push(("u1", NOW - DAY, 1.0), ("u2", NOW - DAY - TICK, 2.0))
    assert features.mean("u1", "u2") == [1.0, None]
    features.clock.set(NOW + TICK)
    assert features.mean("u1") == [None]


def test_on_event_time_a_replay_of_the_past_is_served_by_the_age_it_had_then(features: Features) -> None:
    features.feast.config.online_store.ttl_clock = "event"
    past = NOW - 900 * DAY
    features.push(("u1", past, 1.0), ("u2", past + DAY, 2.0))
    assert features.mean("u1", "u2") == [1.0, 2.0]
    features.push(("u3", past + DAY + TICK, 3.0))
    assert features.mean("u1", "u2", "u3") == [None, 2.0, 3.0]


def test_every_entity_row_comes_back_in_its_place_also_of_strangers_copies_and_nobody(features: Features) -> None:
    features.push(("u1", NOW, 1.0), ("u2", NOW, 2.0))
    assert features.mean("u2", "stranger", "u1", None, "u2") == [2.0, None, 1.0, None, 2.0]
    assert features.mean(None) == [None]


def test_the_feature_service_gives_user_and_terminal_with_the_times_of_their_events(features: Features) -> None:
    at = NOW - timedelta(hours=1, microseconds=7)
    features.push(("u1", at, 5.0))
    service = features.feast.get_feature_service("fraud_detection")
    response = features.feast.get_online_features(
        features=service, entity_rows=[{"user_id": "u1", "terminal_id": "m1"}]
    )
    values = response.to_dict()
    assert (values["max_transaction_amount"], values["transaction_count_7d"], values["terminal_count_7d"]) == (
        [5.0],
        [1.0],
        [5.0],
    )
    [names] = [list(response.proto.metadata.feature_names.val)]
    assert response.proto.results[names.index("terminal_count_7d")].event_timestamps[0].ToMicroseconds() == round(
        at.timestamp() * 1e6
    )


def test_materializing_the_archive_fills_gaps_and_leaves_newer_values_alone(features: Features) -> None:
    features.push(("u1", NOW, 9.0))
    table = served(
        ("u1", NOW - timedelta(hours=1), 1.0),
        ("u2", NOW - timedelta(hours=2), 2.0),
        ("u2", NOW - timedelta(hours=1), 3.0),
    ).assign(offset=range(3))
    folder = features.data / "archive" / "predictions" / "day=2026-03-01"
    folder.mkdir(parents=True)
    pq.write_table(
        pa.Table.from_pandas(table, preserve_index=False), folder / "predictions-0.parquet", coerce_timestamps="us"
    )
    features.feast.materialize(NOW - DAY, NOW)
    assert features.mean("u1", "u2") == [9.0, 3.0]


def test_a_second_process_reads_what_the_first_has_pushed(features: Features) -> None:
    features.push(("u1", datetime.now(UTC), 1.0))
    other = open_store(REPO, features.data, features.redis)
    assert other.get_online_features(features=[COUNT], entity_rows=[{"user_id": "u1"}]).to_dict()[
        "transaction_count_7d"
    ] == [1.0]


def test_a_store_that_is_away_is_named_as_what_is_waited_for(tmp_path: Path) -> None:
    blocked = open_store(REPO, tmp_path / "s")
    (tmp_path / "s" / "feast" / "online.db").mkdir(parents=True)
    with pytest.raises(DependencyUnavailable) as unavailable:
        apply(blocked, REPO, tmp_path / "s")
    assert unavailable.value.dependency == "feature store"

    unreachable = open_store(REPO, tmp_path / "r", f"127.0.0.1:{free_port()}")
    apply(unreachable, REPO, tmp_path / "r")
    with pytest.raises(DependencyUnavailable) as unavailable:
        FeaturePusher(unreachable).push(served(("u1", NOW, 1.0)))
    assert unavailable.value.dependency == "feature store"
