"""``get_historical_features`` over the archive's own files: each entity row comes back with what was known of it at its
time."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from centinela.events import Kind, TransactionScored
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.featurestore.push import FeaturePusher
from centinela.featurestore.repository import apply, open_store
from centinela.kafka.port import TopicPartition
from centinela.testing.clock import FixedClock
from centinela_local.paths import CHECKOUT
from centinela_trainer.archive.arrow_tables import Row, verdict_tables
from centinela_trainer.archive.store import ArchiveStore

REPO = CHECKOUT / "deploy" / "feast"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY, TICK = timedelta(days=1), timedelta(microseconds=1)
NARROW, WIDE = FeatureLayout(), FeatureLayout(("v1",))
MEAN, RISK = "user_transaction_features:avg_transaction_amount", "terminal_risk_features:terminal_risk_7d"


class Archived:
    """An archive, and Feast over it."""

    def __init__(self, data: Path, repo: Path = REPO) -> None:
        self.store, self._offset = ArchiveStore(data / "archive"), 0
        self.feast = open_store(repo, data)
        apply(self.feast, repo, data)

    def write(
        self,
        *rows: tuple[str | None, datetime, float],
        layout: FeatureLayout = NARROW,
        scored_at: datetime = NOON,
        kind: Kind = "purchase",
    ) -> None:
        """One file of (user, event time, mean), in the order of the log; the terminal is ``m1``, its risk the mean."""
        events = []
        for user, at, mean in rows:
            vector = np.zeros(len(layout.names))
            vector[[layout.names.index("user_mean_30d"), layout.names.index("terminal_risk_7d")]] = mean
            events.append(
                Row(
                    "predictions",
                    0,
                    self._offset,
                    TransactionScored(
                        transaction_id=f"t{self._offset}",
                        user_id=user,
                        terminal_id="m1",
                        occurred_at=at,
                        amount=1.0,
                        decision="approve",
                        variant="none",
                        origin="history",
                        feature_set=layout.id,
                        features=pack_rows(vector[None, :])[0],
                        scored_at=scored_at,
                        kind=kind,
                    ),
                )
            )
            self._offset += 1
        self.store.write(
            "predictions", TopicPartition("predictions", 0), events[0].offset, events[-1].offset, verdict_tables(events)
        )

    def history(
        self, *rows: tuple[str | None, datetime], features: tuple[str, ...] = (MEAN,), **options: Any
    ) -> pd.DataFrame:
        """The answer to (user, time) rows, in their order."""
        users, times = (list(column) for column in zip(*rows, strict=True))
        asked = pd.DataFrame(
            {"user_id": users, "terminal_id": "m1", "event_timestamp": pd.to_datetime(times), "row": range(len(rows))}
        )
        answer = self.feast.get_historical_features(entity_df=asked, features=list(features), **options).to_df()
        assert sorted(answer["row"]) == list(range(len(rows)))
        return answer.sort_values("row").reset_index(drop=True)

    def mean(self, *rows: tuple[str | None, datetime], **options: Any) -> list[float | None]:
        return [
            None if np.isnan(value) else value for value in self.history(*rows, **options)["avg_transaction_amount"]
        ]


@pytest.fixture
def archived(tmp_path: Path) -> Archived:
    return Archived(tmp_path)


def test_every_entity_row_comes_back_also_copies_strangers_and_nobody(archived: Archived) -> None:
    archived.write(("u1", NOON, 1.0), (None, NOON, 5.0))
    later = NOON + timedelta(hours=1)
    assert archived.mean(("u1", later), ("stranger", later), ("u1", later), (None, later), ("u1", later)) == [
        1.0,
        None,
        1.0,
        None,
        1.0,
    ]


def test_a_refund_is_nobodys_last_event(archived: Archived) -> None:
    archived.write(("u1", NOON, 1.0))
    archived.write(("u1", NOON + timedelta(hours=1), 9.0), kind="refund")
    assert archived.mean(("u1", NOON + timedelta(hours=2))) == [1.0]


def test_a_row_sees_the_last_event_up_to_its_time_within_the_time_to_live(archived: Archived) -> None:
    archived.write(("u1", NOON, 1.0), ("u1", NOON + timedelta(hours=2), 2.0))
    end = NOON + timedelta(hours=2) + DAY
    assert archived.mean(
        ("u1", NOON - TICK),
        ("u1", NOON),
        ("u1", NOON + timedelta(hours=2) - TICK),
        ("u1", NOON + timedelta(hours=2)),
        ("u1", end),
        ("u1", end + TICK),
    ) == [None, 1.0, 1.0, 2.0, 2.0, None]


def test_of_events_at_one_instant_the_last_in_the_log_counts(archived: Archived) -> None:
    archived.write(*(("u1", NOON, float(n)) for n in range(40)))
    archived.write(*(("u1", NOON, float(n)) for n in range(40, 60)))
    assert archived.mean(("u1", NOON)) == [59.0]


def test_one_more_line_serves_one_more_column_of_the_vector_also_where_old_files_lack_it(tmp_path: Path) -> None:
    repo = shutil.copytree(REPO, tmp_path / "repo")
    definitions = repo / "features.py"
    line = '        Field(name="transaction_count_7d",'
    definitions.write_text(definitions.read_text().replace(line, f'        Field(name="v1", dtype=Float64),\n{line}'))
    archived = Archived(tmp_path / "data", repo)
    archived.write(("u1", NOON, 1.0), layout=NARROW)
    archived.write(("u2", NOON, 2.0), layout=WIDE)
    archived.write(("u3", NOON, 3.0), layout=NARROW)
    v1 = "user_transaction_features:v1"
    answer = archived.history(("u1", NOON), ("u2", NOON), ("u3", NOON), features=(MEAN, v1))
    np.testing.assert_array_equal(answer[["avg_transaction_amount", "v1"]], [[1.0, np.nan], [2.0, 0.0], [3.0, np.nan]])

    online = cast("Any", archived.feast._get_provider().online_store)
    online.clock = FixedClock(NOON)
    served = pd.DataFrame(
        {
            "user_id": ["u2"],
            "terminal_id": None,
            "occurred_at": [NOON],
            "scored_at": [NOON],
            "user_mean_30d": 2.0,
            "v1": 7.0,
        }
    )
    FeaturePusher(archived.feast).push(served)
    assert archived.feast.get_online_features(features=[v1], entity_rows=[{"user_id": "u2"}]).to_dict()["v1"] == [7.0]


def test_before_the_first_file_there_are_rows_without_values(archived: Archived) -> None:
    answer = archived.history(("u1", NOON), ("u2", NOON), features=(MEAN, RISK))
    assert answer[["avg_transaction_amount", "terminal_risk_7d"]].isna().all(axis=None)


def test_a_time_without_a_zone_is_utc_and_the_callers_frame_stays_as_it_was(archived: Archived) -> None:
    archived.write(("u1", NOON, 1.0))
    naive = NOON.replace(tzinfo=None)
    asked = pd.DataFrame({"user_id": ["u1", "u1"], "event_timestamp": [naive, naive - TICK]})
    answer = archived.feast.get_historical_features(entity_df=asked, features=[MEAN]).to_df()
    assert sorted(answer["avg_transaction_amount"].fillna(-1)) == [-1.0, 1.0]
    assert asked["event_timestamp"].dt.tz is None


def test_user_and_terminal_are_joined_each_by_its_own_key(archived: Archived) -> None:
    archived.write(("u1", NOON, 1.0), ("u2", NOON + timedelta(hours=1), 2.0))
    answer = archived.history(("u1", NOON + timedelta(hours=2)), ("u9", NOON), features=(MEAN, RISK))
    np.testing.assert_array_equal(answer[["avg_transaction_amount", "terminal_risk_7d"]], [[1.0, 2.0], [np.nan, 1.0]])


def test_only_on_demand_a_row_waits_until_the_verdict_was_there(archived: Archived) -> None:
    archived.write(("u1", NOON, 1.0), scored_at=NOON + timedelta(seconds=2))
    rows = ("u1", NOON + timedelta(seconds=1)), ("u1", NOON + timedelta(seconds=2))
    assert archived.mean(*rows) == [1.0, 1.0]
    assert archived.mean(*rows, filter_by_created_timestamp=True) == [None, 1.0]
