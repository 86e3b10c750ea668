"""Training features as served, and recomputed from the archive: the same where the stream was right, better where it
lacked a feature."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from centinela.datasets.simulator import Profile, Simulation
from centinela.events import LabelReported, TransactionScored
from centinela.features.backfill import build_features
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.features.spec import Feature
from centinela.kafka.port import TopicPartition
from centinela.times import DAY_MS
from centinela_trainer.archive.arrow_tables import Row, label_tables, verdict_tables
from centinela_trainer.archive.reader import ArchiveReader
from centinela_trainer.snapshots.format import dataset_digest
from centinela_trainer.training.dataset import Dataset, assemble
from centinela_trainer.training.feature_source import read_features
from tests.support.tables import rows_of

START = datetime(2025, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
OLD = FeatureLayout()
NEW = FeatureLayout((), (Feature("user_count_1h", "user", "count", DAY_MS // 24),))


@pytest.fixture(scope="module")
def transactions() -> pd.DataFrame:
    """In the order of the log, some late, some refunds."""
    simulation = Simulation(Profile(seed=6, customers=40, terminals=50, start=date(2025, 1, 1)))
    frame = pd.concat([simulation.day(number) for number in range(60)], ignore_index=True).sort_values(
        "occurred_at", kind="stable"
    )
    late = np.arange(len(frame)) + np.where(np.random.default_rng(1).random(len(frame)) < 0.04, 30, 0)
    frame["kind"] = np.where(np.random.default_rng(2).random(len(frame)) < 0.03, "refund", "purchase")
    return frame.iloc[np.argsort(late, kind="stable")].reset_index(drop=True)


SOURCES: tuple[Literal["served", "recomputed"], ...] = ("served", "recomputed")


def reports(transactions: pd.DataFrame) -> pd.DataFrame:
    frauds = transactions[transactions["is_fraud"] & transactions["reported_at"].notna()]
    return frauds[["transaction_id", "is_fraud", "occurred_at", "reported_at"]]


@pytest.fixture(scope="module")
def archive(transactions: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ArchiveReader:
    """All served with the old layout; one partition, one verdict twice."""
    reader = ArchiveReader(tmp_path_factory.mktemp("archive"))
    served = pack_rows(build_features(transactions, reports(transactions), OLD, order="log").to_numpy())
    rows = [
        Row(
            "predictions",
            0,
            number,
            TransactionScored(
                transaction_id=row.transaction_id,
                occurred_at=row.occurred_at.to_pydatetime(),
                amount=row.amount,
                decision="approve",
                variant="none",
                origin="history",
                feature_set=OLD.id,
                features=vector,
                scored_at=row.occurred_at.to_pydatetime(),
                user_id=row.user_id,
                terminal_id=row.terminal_id,
                kind=row.kind,
            ),
        )
        for number, (row, vector) in enumerate(zip(rows_of(transactions), served, strict=True))
    ]
    rows.append(Row("predictions", 0, len(rows), rows[-1].event))
    reader.store.write("predictions", TopicPartition("predictions", 0), 0, len(rows) - 1, verdict_tables(rows))
    labels = [
        Row(
            "labels",
            0,
            number,
            LabelReported(
                transaction_id=row.transaction_id,
                is_fraud=True,
                occurred_at=row.occurred_at.to_pydatetime(),
                reported_at=row.reported_at.to_pydatetime(),
            ),
        )
        for number, row in enumerate(rows_of(reports(transactions)))
    ]
    reader.store.write("labels", TopicPartition("labels", 0), 0, len(labels) - 1, label_tables(labels))
    return reader


def training_set(
    reader: ArchiveReader,
    layout: FeatureLayout,
    how: Literal["served", "recomputed"],
    as_of: datetime,
    window: timedelta,
) -> Dataset:
    start = as_of - 7 * DAY - window
    table = read_features(reader, layout, start, as_of, how)
    return assemble(table, reader.labels(start, as_of), layout.names, as_of=as_of, maturity=7 * DAY, window=window)


@pytest.mark.parametrize("as_of", [START + 30 * DAY, START + 52 * DAY + timedelta(hours=5)])
def test_recomputed_is_what_was_served_late_transactions_included(archive: ArchiveReader, as_of: datetime) -> None:
    served, again = (training_set(archive, OLD, how, as_of, 100 * DAY) for how in SOURCES)
    assert len(served) > 500
    assert dataset_digest(again) == dataset_digest(served)


@pytest.mark.parametrize("how", SOURCES)
def test_no_model_learns_from_a_refund(
    archive: ArchiveReader, transactions: pd.DataFrame, how: Literal["served", "recomputed"]
) -> None:
    as_of = START + 52 * DAY
    learned = training_set(archive, OLD, how, as_of, 100 * DAY).transaction_ids.tolist()
    mature = transactions[transactions["occurred_at"] <= as_of - 7 * DAY]
    assert sorted(learned) == sorted(mature.loc[mature["kind"] == "purchase", "transaction_id"])
    assert len(learned) < len(mature)


def test_a_window_of_history_has_whole_windows(archive: ArchiveReader) -> None:
    served, again = (training_set(archive, OLD, how, START + 60 * DAY, 8 * DAY) for how in SOURCES)
    columns = [at for at, name in enumerate(OLD.names) if name != "user_seconds_since_last"]
    assert again.transaction_ids.tolist() == served.transaction_ids.tolist()
    np.testing.assert_array_equal(again.matrix[:, columns], served.matrix[:, columns])
    since = OLD.names.index("user_seconds_since_last")
    known = ~np.isnan(again.matrix[:, since])
    assert known.mean() > 0.9
    np.testing.assert_array_equal(again.matrix[known, since], served.matrix[known, since])


def test_a_feature_that_the_stream_did_not_serve_yet_is_there_when_recomputed(
    archive: ArchiveReader, transactions: pd.DataFrame
) -> None:
    as_of = START + 40 * DAY
    served, again = (training_set(archive, NEW, how, as_of, 100 * DAY) for how in SOURCES)
    assert "user_count_1h" not in served.present()
    assert "user_count_1h" in again.present()
    expected = build_features(transactions, reports(transactions), NEW, order="log").set_index(
        transactions["transaction_id"]
    )
    at = NEW.names.index("user_count_1h")
    np.testing.assert_array_equal(
        again.matrix[:, at], expected.loc[again.transaction_ids.tolist(), "user_count_1h"].to_numpy()
    )


def test_nothing_reported_after_as_of_reaches_a_recomputed_feature(
    archive: ArchiveReader, transactions: pd.DataFrame
) -> None:
    as_of = START + 45 * DAY
    again = training_set(archive, OLD, "recomputed", as_of, 100 * DAY)
    reported = reports(transactions)
    seen = transactions[transactions["occurred_at"] <= as_of]
    expected = build_features(seen, reported[reported["reported_at"] <= as_of], OLD, order="log").set_index(
        seen["transaction_id"]
    )
    np.testing.assert_array_equal(again.matrix, expected.loc[again.transaction_ids.tolist()].to_numpy())


def test_an_empty_archive_gives_an_empty_set(tmp_path: Path) -> None:
    table = read_features(ArchiveReader(tmp_path), OLD, START, START + DAY, "recomputed")
    assert len(table) == 0
    assert set(OLD.names) <= set(table.column_names)
