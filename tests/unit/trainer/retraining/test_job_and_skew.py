"""A training request end to end on fakes: features that no stream computes keep a good challenger from promotion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest

from centinela.datasets.simulator import Profile, Simulation
from centinela.events import LabelReported, RetrainRequested, TransactionScored
from centinela.features.backfill import build_features
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.kafka.port import TopicPartition
from centinela.model.bundle import SIGNATURE
from centinela.model.registry import CHAMPION, Registry
from centinela.model.signing import new_key
from centinela.settings import Settings
from centinela.testing.clock import FixedClock
from centinela.testing.registry_store import FakeStore
from centinela_trainer.archive.arrow_tables import Row, label_tables, verdict_tables
from centinela_trainer.archive.reader import ArchiveReader
from centinela_trainer.mlflow_tracking import Tracking
from centinela_trainer.params import GateParams, HgbParams, Params, SkewParams, TrainParams
from centinela_trainer.retraining.job import TrainingJob
from centinela_trainer.skew.check import SkewCheck
from centinela_trainer.skew.report import load
from centinela_trainer.snapshots.store import SnapshotStore
from tests.support.tables import rows_of

START, DAYS, NAME = datetime(2025, 1, 1, tzinfo=UTC), 50, "FraudDetector"
LAYOUT = FeatureLayout()
PARAMS = Params(
    train=TrainParams(hgb=HgbParams(max_iter=30), min_frauds=10),
    skew=SkewParams(sample=200),
    gate=GateParams(min_average_precision=0.1, min_frauds=3),
)


class FakeTracking:
    """One run in memory; a version's bundle goes to *store*."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self.metrics: dict[str, float] = {}
        self.run_tags: dict[str, str] = {}
        self.artifacts: dict[str, bytes] = {}

    def find(self, _request_id: str) -> None:
        return None

    def fail_unfinished(self) -> list[str]:
        return []

    def start(self, _name: str, tags: dict[str, str]) -> str:
        self.run_tags |= tags
        return "run-1"

    def log(
        self,
        _run_id: str,
        *,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.metrics |= metrics or {}
        self.run_tags |= tags or {}

    def log_artifacts(self, _run_id: str, folder: Path, under: str | None = None) -> None:
        self.artifacts |= {
            f"{under}/{path.name}" if under else path.name: path.read_bytes() for path in folder.iterdir()
        }

    def log_data(self, _run_id: str, _data: object) -> None:
        pass

    def log_model(self, _run_id: str, _model: object) -> str:
        return "models:/m-1"

    def is_running(self, _run_id: str) -> bool:
        return True

    def save_judgement(self, _run_id: str, _judgement: object) -> None:
        pass

    def complete(self, _run_id: str, _completed: object) -> None:
        pass

    def tags(self, _run_id: str) -> dict[str, str]:
        return self.run_tags

    def register(self, _run_id: str, _uri: str, tags: dict[str, str]) -> str:
        bundle = {
            name.removeprefix("bundle/"): data for name, data in self.artifacts.items() if name.startswith("bundle/")
        }
        return self._store.add_version(NAME, START, bundle=bundle, tags=tags)


@pytest.fixture(scope="module")
def history() -> pd.DataFrame:
    simulation = Simulation(Profile(seed=3, customers=120, terminals=200, start=date(2025, 1, 1)))
    return pd.concat([simulation.day(number) for number in range(DAYS)], ignore_index=True)


def fill(reader: ArchiveReader, history: pd.DataFrame, spoil: Callable[[np.ndarray], object]) -> None:
    frauds = history[history["is_fraud"] & history["reported_at"].notna()]
    matrix = build_features(
        history, frauds[["transaction_id", "is_fraud", "occurred_at", "reported_at"]], LAYOUT
    ).to_numpy()
    spoil(matrix)
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
                feature_set=LAYOUT.id,
                features=vector,
                scored_at=row.occurred_at.to_pydatetime(),
                user_id=row.user_id,
                terminal_id=row.terminal_id,
            ),
        )
        for number, (row, vector) in enumerate(zip(rows_of(history), pack_rows(matrix), strict=True))
    ]
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
        for number, row in enumerate(rows_of(frauds))
    ]
    reader.store.write("labels", TopicPartition("labels", 0), 0, len(labels) - 1, label_tables(labels))


def count_double(matrix: np.ndarray) -> None:
    """A stream that counts a user's transactions twice: consistently wrong, so that no score tells."""
    matrix[:, LAYOUT.names.index("user_count_7d")] *= 2


def test_a_good_challenger_does_not_replace_a_model_that_nobody_could_compare_it_with(
    history: pd.DataFrame, tmp_path: Path
) -> None:
    """The alias was set by hand to a version without a bundle; the predictors go on serving the one before."""
    reader, store = ArchiveReader(tmp_path / "archive"), FakeStore()
    fill(reader, history, lambda _: None)
    registry = Registry(Settings(model_name=NAME), store=store)
    by_hand = store.add_version(NAME, START)
    store.set_alias(NAME, CHAMPION, by_hand)
    work = tmp_path / "work"
    work.mkdir()
    tracking = FakeTracking(store)
    job = TrainingJob(
        PARAMS,
        timedelta(days=7),
        reader,
        SnapshotStore(tmp_path / "snapshots"),
        SkewCheck(tmp_path / "archive", PARAMS.skew, tmp_path / "skew.json"),
        cast("Tracking", tracking),
        registry,
        FixedClock(START),
        work,
    )
    answer = job.run(
        RetrainRequested(
            request_id="r",
            model_name=NAME,
            requested_by="operator",
            as_of=START + timedelta(days=DAYS),
            reason="a test",
        )
    )
    assert answer.outcome == "refused"
    assert f"the champion could not be compared with (version {by_hand}: missing_file: manifest.json)" in answer.reason
    assert "remove the alias" in answer.reason
    assert registry.aliases() == {CHAMPION: by_hand}


@pytest.mark.parametrize(("spoil", "outcome"), [(lambda _: None, "promoted"), (count_double, "refused")])
def test_a_challenger_is_promoted_only_where_served_features_are_those_of_the_batch_form(
    history: pd.DataFrame, tmp_path: Path, spoil: Callable[[np.ndarray], object], outcome: str
) -> None:
    reader, store = ArchiveReader(tmp_path / "archive"), FakeStore()
    fill(reader, history, spoil)
    tracking, registry = FakeTracking(store), Registry(Settings(model_name=NAME), store=store)
    check, work = SkewCheck(tmp_path / "archive", PARAMS.skew, tmp_path / "skew.json"), tmp_path / "work"
    work.mkdir()
    key = new_key("trainer")[1]
    job = TrainingJob(
        PARAMS,
        timedelta(days=7),
        reader,
        SnapshotStore(tmp_path / "snapshots"),
        check,
        cast("Tracking", tracking),
        registry,
        FixedClock(START),
        work,
        key,
    )
    answer = job.run(
        RetrainRequested(
            request_id="r",
            model_name=NAME,
            requested_by="operator",
            as_of=START + timedelta(days=DAYS),
            reason="a test",
        )
    )
    assert answer.outcome == outcome, answer.reason
    assert registry.version_of(CHAMPION) == ("1" if outcome == "promoted" else None)
    assert tracking.metrics["skew_judged_rows"] == 200
    assert tracking.metrics["skew_mismatch_rate"] == (0 if outcome == "promoted" else 1)
    assert "skew.json" in tracking.artifacts
    report = load(tmp_path / "skew.json")
    assert report is not None
    assert report.mismatches == (0 if outcome == "promoted" else 200)
    if outcome == "promoted":
        signed = Registry(Settings(model_name=NAME, model_public_keys=key.public()), store=store).download(
            "1", tmp_path / "signed"
        )
        assert (signed / SIGNATURE).read_text().startswith("trainer:ed25519.")
    else:
        assert "served user_count_7d differs from the batch form in 100.00% of 200 sampled rows" in answer.reason
