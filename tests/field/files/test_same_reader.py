"""``backfill`` and the pipeline take what ``replay`` takes, with the same options."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from centinela.datasets.rows import LabelRule
from centinela.datasets.source import open_files
from centinela.datasets.table import UnreadableFile
from centinela.errors import CentinelaError
from centinela.features.layout import FeatureLayout
from centinela_trainer.commands.backfill import backfill
from centinela_trainer.params import DataParams, Params, ParamsError
from centinela_trainer.pipeline.data import load_history, training_set
from tests.field.files.support import NOW

MAPPING = "columns: {Datum: occurred_at, Betrag: amount, Kunde: user_id}\nid_prefix: f-\n"


@pytest.fixture
def excel(tmp_path: Path) -> Path:
    """A file as German Excel writes it on Windows, newest row first, one row no transaction."""
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    rows = [
        "Datum;Betrag;Kunde",
        "06.01.2026 10:00;1.234,50;Müller",
        "Summe;1.247,00;",
        "05.01.2026 10:00;12,50;Müller",
    ]
    (tmp_path / "t.csv").write_bytes(("\r\n".join(rows) + "\r\n").encode("cp1252"))
    return tmp_path / "t.csv"


def params(path: Path, encoding: str | None = None) -> Params:
    return Params(data=DataParams(path=str(path), mapping=str(path.with_name("mapping.yaml")), encoding=encoding))


def test_the_pipeline(excel: Path) -> None:
    history = load_history(params(excel, "cp1252"), NOW)
    assert history.transactions["amount"].tolist() == [1234.5, 12.5]
    assert set(history.transactions["user_id"]) == {"Müller"}
    assert history.rejected == 1


def test_the_pipeline_names_the_option_and_the_file_without_a_transaction(excel: Path) -> None:
    with pytest.raises(UnreadableFile, match="pass --encoding"):
        load_history(params(excel), NOW)
    excel.write_text("Datum;Betrag;Kunde\r\nSumme;1,00;\r\n")
    with pytest.raises(ParamsError, match="no row is a transaction; 1 were rejected"):
        load_history(params(excel), NOW)


def test_backfill(excel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backfill(excel, tmp_path / "out", str(tmp_path / "mapping.yaml"), None, None, "cp1252", 7.0)
    found = pd.concat([pd.read_parquet(path) for path in sorted((tmp_path / "out").glob("day=*/*.parquet"))])
    assert found["transaction_id"].tolist() == ["f-000000003", "f-000000001"]
    assert found["amount"].tolist() == [12.5, 1234.5]
    assert "t.csv, row 2 left out" in capsys.readouterr().err


@pytest.fixture
def yen_and_euros(tmp_path: Path) -> Path:
    (tmp_path / "mapping.yaml").write_text(
        "columns: {at: occurred_at, sum: amount, card: user_id, code: currency}\nid_prefix: y-\n"
    )
    rows = ["at,sum,card,code", "2026-03-05T10:00:00Z,100000,c1,JPY", "2026-03-06T10:00:00Z,100000,c1,EUR"]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "t.csv"


def test_backfill_converts_as_the_stream_does(
    yen_and_euros: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CENTINELA_RATES_FILE", str(Path(__file__).parent / "rates.csv"))
    backfill(yen_and_euros, tmp_path / "out", str(tmp_path / "mapping.yaml"), None, None, None, 7.0)
    found = pd.concat([pd.read_parquet(path) for path in sorted((tmp_path / "out").glob("day=*/*.parquet"))])
    assert found["amount"].tolist() == [750.0, 100_000.0]
    assert found["user_mean_30d"].tolist() == [750.0, 50_375.0]


def test_backfill_without_rates_says_what_is_missing(yen_and_euros: Path, tmp_path: Path) -> None:
    with pytest.raises(CentinelaError, match="no rate from JPY to EUR: add it to the file of CENTINELA_RATES_FILE"):
        backfill(yen_and_euros, tmp_path / "out", str(tmp_path / "mapping.yaml"), None, None, None, 7.0)
    assert not (tmp_path / "out").exists()


def test_the_pipeline_takes_one_currency(yen_and_euros: Path) -> None:
    with pytest.raises(ParamsError, match="amounts in EUR, JPY; the pipeline takes one currency"):
        load_history(params(yen_and_euros), datetime(2026, 4, 1, tzinfo=UTC))


@pytest.fixture
def with_a_refund(tmp_path: Path) -> Path:
    (tmp_path / "mapping.yaml").write_text(
        "columns: {at: occurred_at, sum: amount, card: user_id, what: kind, fraud: is_fraud}\nid_prefix: k-\n"
    )
    rows = [
        "at,sum,card,what,fraud",
        "2026-03-05T10:00:00Z,100,c1,,0",
        "2026-03-06T10:00:00Z,40,c1,Refund,0",
        "2026-03-07T10:00:00Z,20,c1,purchase,0",
        "2026-03-08T10:00:00Z,20,c1,chargeback,0",
        "2026-03-09T10:00:00Z,-20,c1,refund,0",
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "t.csv"


def test_a_refund_in_a_file_is_in_nobodys_windows(with_a_refund: Path, tmp_path: Path) -> None:
    backfill(with_a_refund, tmp_path / "out", str(tmp_path / "mapping.yaml"), None, None, None, 7.0)
    found = pd.concat([pd.read_parquet(path) for path in sorted((tmp_path / "out").glob("day=*/*.parquet"))])
    assert found["user_mean_30d"].fillna(-1).tolist() == [100.0, -1.0, 60.0]


def test_no_model_of_the_pipeline_learns_from_a_refund(with_a_refund: Path) -> None:
    history = load_history(params(with_a_refund), datetime(2026, 4, 1, tzinfo=UTC))
    assert (history.transactions["kind"].tolist(), history.rejected) == (["purchase", "refund", "purchase"], 2)
    dataset = training_set(history, params(with_a_refund), FeatureLayout(()))
    assert len(dataset.times_us) == 2


def test_another_kind_or_a_negative_amount_says_what_to_write(with_a_refund: Path, tmp_path: Path) -> None:
    files = open_files(with_a_refund, str(tmp_path / "mapping.yaml"))
    [part] = files.parts(LabelRule(), datetime(2026, 4, 1, tzinfo=UTC))
    assert part.transactions.kind.tolist() == ["purchase", "refund", "purchase"]
    assert [(reject.row, reject.detail) for reject in part.rejects] == [
        (4, "kind: none of purchase, refund, reversal"),
        (5, "amount: negative; give a refund its amount, and map a column to kind"),
    ]
