"""Served vectors against the batch form: equal where the stream was right, told where it was not, silent where nobody
can know."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import typer
from prometheus_client import CollectorRegistry, generate_latest
from typer.testing import CliRunner

from centinela.datasets.simulator import Profile, Simulation
from centinela.events import LabelReported, TransactionReceived, TransactionScored
from centinela.features.assemble import Columns, assemble, attribute_matrix
from centinela.features.keys import hash_ids
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.features.spec import Feature
from centinela.features.state.terminals import TerminalState
from centinela.features.state.users import UserState
from centinela.kafka.port import TopicPartition
from centinela.times import DAY_MS, to_ms_array
from centinela_trainer.archive.arrow_tables import Row, label_tables, verdict_tables
from centinela_trainer.archive.store import ArchiveStore
from centinela_trainer.commands.skew import skew, table
from centinela_trainer.params import SkewParams
from centinela_trainer.skew.check import SkewCheck
from centinela_trainer.skew.compare import BEFORE_ARCHIVE, MOVED, differing
from centinela_trainer.skew.metrics import SkewCollector
from centinela_trainer.skew.report import SkewReport, excess, load
from tests.support.tables import rows_of

DAYS, PARTITIONS, BATCH = 46, 2, 97
LAYOUT = FeatureLayout(
    ("v1",),
    (
        Feature("user_terminals_1d", "user", "distinct", DAY_MS, column="terminal_id"),
        Feature("user_v1_mean_7d", "user", "mean", 7 * DAY_MS, column="v1"),
    ),
)
PARAMS = SkewParams(sample=150, recent_days=8)
COUNT_7D = LAYOUT.names.index("user_count_7d")
START = datetime(2025, 1, 1, tzinfo=UTC)


class Served:
    """What a stream with the features' stream form leaves in the archive: two partitions, micro-batches, some
    transactions late."""

    def __init__(self) -> None:
        days = Simulation(Profile(seed=4, customers=60, terminals=80, start=date(2025, 1, 1)))
        frame = pd.concat([days.day(number) for number in range(DAYS)], ignore_index=True).sort_values(
            "occurred_at", kind="stable"
        )
        random = np.random.default_rng(8)
        late = np.arange(len(frame)) + np.where(random.random(len(frame)) < 0.05, 40, 0)
        frame = frame.iloc[np.argsort(late, kind="stable")]
        self.transactions = [
            TransactionReceived(
                transaction_id=row.transaction_id,
                occurred_at=row.occurred_at.to_pydatetime(),
                amount=row.amount,
                user_id=row.user_id,
                terminal_id=row.terminal_id,
                attributes={"v1": float(number % 7)},
            )
            for number, row in enumerate(rows_of(frame))
        ]
        frauds = frame[frame["is_fraud"] & frame["reported_at"].notna()].sort_values("reported_at")
        self.labels = [
            LabelReported(
                transaction_id=row.transaction_id,
                is_fraud=True,
                occurred_at=row.occurred_at.to_pydatetime(),
                reported_at=row.reported_at.to_pydatetime(),
                user_id=row.user_id,
            )
            for row in rows_of(frauds)
        ]
        self.matrix = self._streamed()

    def _streamed(self) -> np.ndarray:
        users, terminals, matrix, told = UserState(LAYOUT), TerminalState(LAYOUT), [], 0
        for first in range(0, len(self.transactions), BATCH):
            part = self.transactions[first : first + BATCH]
            columns, now = Columns.of(part, LAYOUT), max(t.occurred_at for t in part)
            due = [label for label in self.labels[told:] if label.reported_at <= now]
            told += len(due)
            if due:
                terminals.apply_labels(
                    hash_ids([d.transaction_id for d in due]),
                    np.ones(len(due), bool),
                    to_ms_array([d.occurred_at for d in due]),
                    to_ms_array([d.reported_at for d in due]),
                )
            terminals.apply_activity(columns.terminals, columns.times, columns.ids)
            matrix.append(
                assemble(
                    columns,
                    users.apply(columns.users, columns.times, columns.minor, columns.stored),
                    terminals.read(columns.terminals, columns.times),
                    attribute_matrix(part, LAYOUT),
                )
            )
        return np.concatenate(matrix)

    def archive(
        self,
        root: Path,
        *,
        matrix: np.ndarray | None = None,
        first_offset: int = 0,
        skip_days: float = 0,
        origins: str = "stream",
        partition_of: Callable[[int, str | None], int] = lambda number, user: int(hash_ids([user])[0]) % PARTITIONS,
    ) -> Path:
        """Write the archive of what was served from day *skip_days* on."""
        store = ArchiveStore(root)
        rows: dict[int, list[Row]] = {number: [] for number in range(PARTITIONS)}
        for number, (event, vector) in enumerate(
            zip(self.transactions, pack_rows(self.matrix if matrix is None else matrix), strict=True)
        ):
            if event.occurred_at < START + timedelta(days=skip_days):
                continue
            partition = int(partition_of(number, event.user_id))
            origin: Literal["stream", "gateway"] = "gateway" if origins == "mixed" and number % 3 == 0 else "stream"
            rows[partition].append(
                Row(
                    "predictions",
                    partition,
                    first_offset + 2 * len(rows[partition]),
                    TransactionScored(
                        transaction_id=event.transaction_id,
                        occurred_at=event.occurred_at,
                        amount=event.amount,
                        decision="approve",
                        variant="champion",
                        origin=origin,
                        feature_set=LAYOUT.id,
                        features=vector,
                        scored_at=event.occurred_at,
                        user_id=event.user_id,
                        terminal_id=event.terminal_id,
                    ),
                )
            )
        for partition, part in rows.items():
            store.write(
                "predictions",
                TopicPartition("predictions", partition),
                part[0].offset,
                part[-1].offset,
                verdict_tables(part),
            )
        labels = [Row("labels", 0, number, label) for number, label in enumerate(self.labels)]
        store.write("labels", TopicPartition("labels", 0), 0, len(labels) - 1, label_tables(labels))
        return root


def checked(check: SkewCheck, as_of: datetime | None = None) -> SkewReport:
    """The report of *check*, which has one."""
    report = check(as_of)
    assert report is not None
    return report


@pytest.fixture(scope="module")
def served() -> Served:
    return Served()


@pytest.fixture(scope="module")
def archive(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served.archive(tmp_path_factory.mktemp("skew") / "archive", origins="mixed")


def test_what_the_stream_served_is_what_the_batch_form_computes_late_transactions_included(archive: Path) -> None:
    report = checked(SkewCheck(archive, PARAMS))
    assert report.judged == {"gateway": 150, "stream": 150}
    assert (report.mismatches, report.rows_differing, report.not_judged) == (0, 0, {})
    assert excess(report, 0.0) is None
    assert {one.feature for one in report.features} == set(LAYOUT.names) - {"amount", "v1"}


def test_the_sample_is_of_the_newest_days_up_to_as_of_and_the_same_each_time(archive: Path) -> None:
    as_of = START + timedelta(days=40, hours=6)
    report = checked(SkewCheck(archive, PARAMS), as_of)
    assert as_of - timedelta(hours=6) < report.as_of <= as_of
    assert report == checked(SkewCheck(archive, PARAMS), as_of)
    assert SkewCheck(archive, PARAMS)(START - timedelta(days=1)) is None


def test_a_wrong_value_is_told_by_feature_and_origin_and_forbids_promotion(served: Served, tmp_path: Path) -> None:
    wrong = served.matrix.copy()
    wrong[::6, COUNT_7D] += 1
    report = checked(SkewCheck(served.archive(tmp_path, matrix=wrong, origins="mixed"), PARAMS))
    counts = {(one.feature, one.origin): one for one in report.features if one.mismatches}
    assert set(counts) == {("user_count_7d", "gateway")}
    [found] = counts.values()
    assert 0.3 < found.rate < 0.7
    assert found.largest == 1
    assert report.worst is not None
    assert (report.worst.feature, report.worst.judged) == ("user_count_7d", 300)
    assert "user_count_7d" in (excess(report, 0.01) or "")
    assert excess(report, 0.9) is None
    example = report.examples[0]
    assert example.recomputed is not None
    assert example.served == example.recomputed + 1


def test_a_stream_that_missed_a_transaction_of_a_user_shows(served: Served, tmp_path: Path) -> None:
    blind = Served.__new__(Served)
    blind.transactions = served.transactions
    blind.labels = []
    blind.matrix = blind._streamed()
    report = checked(SkewCheck(served.archive(tmp_path, matrix=blind.matrix), SkewParams(sample=1_000, recent_days=8)))
    assert {one.feature for one in report.features if one.mismatches} <= {
        "terminal_risk_1d",
        "terminal_risk_7d",
        "terminal_risk_30d",
    }
    assert report.mismatches > 0


def test_rows_whose_windows_begin_before_the_archive_are_not_judged(served: Served, tmp_path: Path) -> None:
    report = checked(SkewCheck(served.archive(tmp_path, first_offset=5_000, skip_days=4), PARAMS))
    assert report.not_judged[BEFORE_ARCHIVE] > 0
    assert sum(report.judged.values()) + report.not_judged[BEFORE_ARCHIVE] == report.sampled == 150
    assert sum(report.judged.values()) > 20
    assert report.mismatches == 0


def test_where_nothing_can_be_judged_nothing_is_forbidden_and_it_is_said(served: Served, tmp_path: Path) -> None:
    report = checked(SkewCheck(served.archive(tmp_path, first_offset=5_000, skip_days=20), PARAMS))
    assert report.judged == {}
    assert excess(report, 0.0) is None
    assert report.sentence() == "nothing could be judged of 150 served vectors, 150 not judged"


def test_a_user_in_two_partitions_is_not_judged(served: Served, tmp_path: Path) -> None:
    report = checked(SkewCheck(served.archive(tmp_path, partition_of=lambda number, _: number % 2), PARAMS))
    assert report.not_judged[MOVED] > 100


def test_files_of_a_topic_made_anew_do_not_count(served: Served, archive: Path, tmp_path: Path) -> None:
    root = served.archive(tmp_path)
    for path in sorted(root.glob("predictions/day=2025-01-1*/*.parquet")):
        path.with_name(f"{path.stem}.kept1.parquet").write_bytes(path.read_bytes())
    assert checked(SkewCheck(root, PARAMS)).mismatches == 0


def test_the_tolerance_is_of_the_last_digits_and_missing_equals_missing_only() -> None:
    served = np.array([1.0, 1.0, 1e6, 1e6, np.nan, np.nan, 0.0])
    other = np.array([1.0 + 5e-10, 1.0 + 5e-9, 1e6 + 5e-4, 1e6 + 5e-3, np.nan, 0.0, np.nan])
    assert differing(served, other).tolist() == [False, True, False, True, False, True, True]


def test_an_empty_archive_has_no_report(tmp_path: Path) -> None:
    assert SkewCheck(tmp_path, PARAMS)() is None


def test_the_report_is_kept_and_stands_on_the_metrics_page(served: Served, tmp_path: Path) -> None:
    wrong = served.matrix.copy()
    wrong[:, COUNT_7D] += 1
    path = tmp_path / "skew" / "report.json"
    report = checked(SkewCheck(served.archive(tmp_path / "archive", matrix=wrong), PARAMS, path))
    assert load(path) == report
    registry = CollectorRegistry()
    registry.register(SkewCollector(path))
    page = generate_latest(registry).decode()
    assert 'centinela_feature_skew_ratio{feature="user_count_7d",origin="stream"} 1.0' in page
    assert 'centinela_feature_skew_ratio{feature="user_count_1d",origin="stream"} 0.0' in page
    assert 'centinela_feature_skew_judged_rows{origin="stream"} 150.0' in page


def test_the_metrics_page_stands_without_a_report_and_with_a_broken_one(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(SkewCollector(tmp_path / "report.json"))
    assert generate_latest(registry) == b""
    (tmp_path / "report.json").write_text("{")
    assert generate_latest(registry) == b""


def test_the_command_ends_with_0_where_all_is_equal_and_with_1_above_the_limit(
    served: Served, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer()
    app.command()(skew)
    (tmp_path / "params.yaml").write_text("skew: {sample: 120, recent_days: 8}\n")
    monkeypatch.setenv("CENTINELA_PARAMS_PATH", str(tmp_path / "params.yaml"))
    for name, matrix, code in (
        ("right", served.matrix, 0),
        ("wrong", served.matrix + (np.arange(len(LAYOUT.names)) == COUNT_7D), 1),
    ):
        monkeypatch.setenv("CENTINELA_DATA_DIR", str(tmp_path / name))
        served.archive(tmp_path / name / "archive", matrix=matrix)
        result = CliRunner().invoke(app, ["--output", str(tmp_path / f"{name}.json")])
        assert result.exit_code == code, result.output
        assert json.loads((tmp_path / f"{name}.json").read_text())["judged"] == {"stream": 120}
    assert "user_count_7d" in result.output


def test_the_table_names_what_differs_and_counts_the_rest(served: Served, tmp_path: Path) -> None:
    wrong = served.matrix.copy()
    wrong[:, COUNT_7D] += 2
    report = checked(SkewCheck(served.archive(tmp_path, matrix=wrong), PARAMS))
    shown = table(report)
    cells = [list(column.cells) for column in shown.columns]
    assert cells == [["user_count_7d", "17 other features"], ["150 (100.00%)", "0"], ["2", ""]]
