"""A backfill writes what ``build_features`` computes, by day, whatever the slabs, from files and from archives
alike."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner, Result

from centinela.datasets.simulator import Profile, Simulation
from centinela.datasets.source import open_files
from centinela.errors import CentinelaError
from centinela.events import LabelReported, TransactionScored
from centinela.features.backfill import build_features
from centinela.features.currency import BASE_ONLY
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.features.spec import Feature
from centinela.kafka.port import TopicPartition
from centinela.times import DAY_MS
from centinela_trainer.archive.arrow_tables import Row, label_tables, verdict_tables
from centinela_trainer.archive.store import ArchiveStore
from centinela_trainer.backfill.features import SlabFeatures
from centinela_trainer.backfill.source import is_archive, open_archive, stage_files
from centinela_trainer.commands.backfill import backfill, fitting, rebuild
from tests.support.tables import rows_of

DAYS = 24
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LAYOUT = FeatureLayout(("v1",), (Feature("user_terminals_1h", "user", "distinct", DAY_MS // 24, column="terminal_id"),))
HANDBOOK = {
    "transaction_id": "TRANSACTION_ID",
    "occurred_at": "TX_DATETIME",
    "user_id": "CUSTOMER_ID",
    "terminal_id": "TERMINAL_ID",
    "amount": "TX_AMOUNT",
    "is_fraud": "TX_FRAUD",
}
MAPPING = """
columns: {id: transaction_id, time: occurred_at, card: user_id, shop: terminal_id, amount: amount, fraud: is_fraud}
attributes: {first: v1}
"""


@pytest.fixture(scope="module")
def transactions() -> pd.DataFrame:
    """Some at the same instant, some without card or shop."""
    simulation = Simulation(Profile(seed=2, customers=50, terminals=70, start=date(2025, 1, 1)))
    frame = pd.concat([simulation.day(number) for number in range(DAYS)], ignore_index=True)
    frame["occurred_at"] = frame["occurred_at"].dt.floor("10min")
    frame["v1"] = np.arange(len(frame)) % 11 / 4
    random = np.random.default_rng(0)
    frame.loc[random.random(len(frame)) < 0.02, "user_id"] = None
    frame.loc[random.random(len(frame)) < 0.02, "terminal_id"] = None
    frame["is_fraud"] |= random.random(len(frame)) < 0.03
    return frame.sort_values(["occurred_at", "transaction_id"], ignore_index=True)


def expected(transactions: pd.DataFrame, layout: FeatureLayout) -> np.ndarray:
    reports = transactions[["transaction_id", "is_fraud", "occurred_at"]].assign(
        reported_at=transactions["occurred_at"] + timedelta(days=7)
    )
    return build_features(transactions, reports, layout).to_numpy()


def own_file(transactions: pd.DataFrame, path: Path) -> Path:
    renamed = transactions.rename(
        columns={
            "transaction_id": "id",
            "occurred_at": "time",
            "user_id": "card",
            "terminal_id": "shop",
            "is_fraud": "fraud",
            "v1": "first",
        }
    )
    columns = ["id", "time", "card", "shop", "amount", "fraud", "first"]
    shuffled = renamed[columns].sample(frac=1, random_state=1)
    shuffled.to_csv(path, index=False) if path.suffix == ".csv" else shuffled.to_parquet(path)
    return path


def read(out: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in sorted(out.glob("day=*/features.parquet"))], ignore_index=True)


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch, **settings: str) -> Result:
    for name, value in settings.items():
        monkeypatch.setenv(f"CENTINELA_{name.upper()}", value)
    app = typer.Typer()
    app.command()(backfill)
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_in_any_order_gives_the_features_of_the_batch_form_by_day(
    transactions: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    (tmp_path / "features.yaml").write_text(
        "- {name: user_terminals_1h, entity: user, aggregation: distinct, column: terminal_id, window: 1h}\n"
    )
    source = own_file(transactions, tmp_path / f"own{suffix}")
    result = run(
        [str(source), str(tmp_path / "out"), "--mapping", str(tmp_path / "mapping.yaml")],
        monkeypatch,
        features_file=str(tmp_path / "features.yaml"),
    )
    assert result.exit_code == 0, result.output
    assert f"{len(transactions):,} transactions over {DAYS} days, 19 features each" in result.output
    written = read(tmp_path / "out")
    assert written["transaction_id"].tolist() == transactions["transaction_id"].tolist()
    np.testing.assert_array_equal(written[list(LAYOUT.names)].to_numpy(np.float64), expected(transactions, LAYOUT))
    assert written["is_fraud"].astype(bool).tolist() == transactions["is_fraud"].tolist()
    assert (written["reported_at"] == written["occurred_at"] + timedelta(days=7)).all()
    days = {
        path.parent.name: pd.read_parquet(path)["occurred_at"] for path in (tmp_path / "out").glob("day=*/*.parquet")
    }
    assert all(set(times.dt.strftime("day=%Y-%m-%d")) == {name} for name, times in days.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["mapping.yaml", "features.yaml", source.name, "out"]
    )


@pytest.mark.parametrize("rows", [1, 37, 100_000])
def test_slabs_of_any_size_give_the_same(transactions: pd.DataFrame, tmp_path: Path, rows: int) -> None:
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    few = transactions.head(300) if rows == 1 else transactions
    staged = stage_files(
        open_files(own_file(few, tmp_path / "own.parquet"), str(tmp_path / "mapping.yaml")),
        timedelta(days=7),
        BASE_ONLY,
        tmp_path,
        NOW,
        lambda _: None,
        print,
    )
    features = SlabFeatures(LAYOUT)
    matrix = np.concatenate([features.add(slab.transactions, slab.reports) for slab in staged.slabs(rows)])
    np.testing.assert_array_equal(matrix, expected(few, LAYOUT))


def an_archive(transactions: pd.DataFrame, root: Path) -> Path:
    """Verdicts with made-up vectors but for amount and v1, two partitions, one verdict twice, one label corrected."""
    layout, store = FeatureLayout(("v1",)), ArchiveStore(root)
    for partition in (0, 1):
        part = transactions[transactions.index % 2 == partition]
        matrix = np.full((len(part), len(layout.names)), -1.0)
        matrix[:, 0], matrix[:, -1] = part["amount"], part["v1"]
        rows = [
            Row(
                "predictions",
                partition,
                number,
                TransactionScored(
                    transaction_id=row.transaction_id,
                    occurred_at=row.occurred_at.to_pydatetime(),
                    amount=row.amount,
                    decision="approve",
                    variant="none",
                    origin="history",
                    feature_set=layout.id,
                    features=vector,
                    scored_at=row.occurred_at.to_pydatetime(),
                    user_id=row.user_id,
                    terminal_id=row.terminal_id,
                    kind=getattr(row, "kind", "purchase"),
                ),
            )
            for number, (row, vector) in enumerate(zip(rows_of(part), pack_rows(matrix), strict=True))
        ]
        rows.append(Row("predictions", partition, len(rows), rows[0].event))
        store.write("predictions", TopicPartition("predictions", partition), 0, len(rows) - 1, verdict_tables(rows))
    told = [
        LabelReported(
            transaction_id=row.transaction_id,
            is_fraud=True,
            occurred_at=row.occurred_at.to_pydatetime(),
            reported_at=row.occurred_at.to_pydatetime() + timedelta(days=7),
        )
        for row in rows_of(transactions[transactions["is_fraud"]])
    ]
    corrected = told[0]
    told.append(
        LabelReported(
            transaction_id=corrected.transaction_id,
            is_fraud=False,
            occurred_at=corrected.occurred_at,
            reported_at=corrected.reported_at + timedelta(hours=5),
        )
    )
    store.write(
        "labels",
        TopicPartition("labels", 0),
        0,
        len(told) - 1,
        label_tables([Row("labels", 0, n, label) for n, label in enumerate(told)]),
    )
    return root


def test_an_archive_gives_the_features_of_its_transactions_whatever_was_served(
    transactions: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transactions = transactions.assign(kind=np.where(np.arange(len(transactions)) % 9 == 4, "reversal", "purchase"))
    root = an_archive(transactions, tmp_path / "archive")
    result = run([str(root), str(tmp_path / "out")], monkeypatch)
    assert result.exit_code == 0, result.output
    assert "2 repeated rows left out" in result.output
    written, layout = read(tmp_path / "out"), FeatureLayout(("v1",))
    frauds = transactions[transactions["is_fraud"]][["transaction_id", "is_fraud", "occurred_at"]]
    reports = frauds.assign(reported_at=frauds["occurred_at"] + timedelta(days=7))
    reports = pd.concat(
        [
            reports,
            reports.head(1).assign(is_fraud=False, reported_at=reports["reported_at"].iloc[0] + timedelta(hours=5)),
        ]
    )
    np.testing.assert_array_equal(
        written[list(layout.names)].to_numpy(np.float64), build_features(transactions, reports, layout).to_numpy()
    )
    wanted = transactions["is_fraud"].where(transactions["is_fraud"], None)
    wanted[frauds.index[0]] = False
    assert written["is_fraud"].tolist() == wanted.tolist()


def test_a_folder_of_files_is_read_as_one(
    transactions: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    own_file(transactions.iloc[::2], tmp_path / "in" / "a.parquet")
    own_file(transactions.iloc[1::2], tmp_path / "in" / "b.csv")
    result = run(
        [str(tmp_path / "in"), str(tmp_path / "out"), "--mapping", str(tmp_path / "mapping.yaml")], monkeypatch
    )
    assert result.exit_code == 0, result.output
    assert read(tmp_path / "out")["transaction_id"].tolist() == transactions["transaction_id"].tolist()


def test_the_handbooks_layout_is_known_and_rows_that_are_none_are_told(
    transactions: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = transactions[list(HANDBOOK)].rename(columns=HANDBOOK).head(50)
    frame["TX_DATETIME"] = frame["TX_DATETIME"].dt.tz_localize(None)
    frame.loc[3, "TX_AMOUNT"] = -1
    frame.to_parquet(tmp_path / "handbook.parquet")
    result = run([str(tmp_path / "handbook.parquet"), str(tmp_path / "out")], monkeypatch)
    assert result.exit_code == 0, result.output
    assert "row 4 left out: invalid_field: amount: negative" in result.output
    assert "49 transactions" in result.output
    assert read(tmp_path / "out")["transaction_id"].str.startswith("hb-").all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.csv", "out"], "nowhere.csv does not exist"),
        (["in.csv", "."], "exists already"),
        (["in.csv", "out"], "has none of the known layouts"),
        (["in.csv", "out", "--mapping", "no.yaml"], "neither shipped (ulb, handbook"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    result = run(arguments, monkeypatch)
    assert isinstance(result.exception, CentinelaError)
    assert said in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_feature_that_looks_at_a_missing_column_is_refused() -> None:
    layout = FeatureLayout(("v1", "v2"), (Feature("user_v2_mean", "user", "mean", DAY_MS, column="v2"),))
    assert fitting(layout, ("v2", "other")).attributes == ("v2",)
    with pytest.raises(CentinelaError, match="user_v2_mean"):
        fitting(layout, ("v1",))


def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    assert is_archive(tmp_path)
    with pytest.raises(CentinelaError, match="holds no verdict"):
        open_archive(tmp_path, tmp_path)


def test_progress_is_told_as_it_goes(transactions: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    read_so_far: list[int] = []
    staged = stage_files(
        open_files(own_file(transactions, tmp_path / "own.csv"), str(tmp_path / "mapping.yaml")),
        timedelta(days=7),
        BASE_ONLY,
        tmp_path,
        NOW,
        read_so_far.append,
        print,
    )
    written: list[int] = []
    rebuild(staged, LAYOUT, tmp_path / "out", written.append)
    assert read_so_far[-1] == written[-1] == len(transactions)
