"""Rows of files become transactions; those that are none keep their number and say why."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from centinela.datasets.columns import NEVER, Transactions
from centinela.datasets.files import open_table
from centinela.datasets.mapping import Mapping, TimeRule, detect
from centinela.datasets.rows import LabelRule, Reject, find_formats, to_transactions
from centinela.datasets.table import TableFile, UnreadableFile

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PLAIN = Mapping(
    columns={
        "id": "transaction_id",
        "at": "occurred_at",
        "who": "user_id",
        "where": "terminal_id",
        "amount": "amount",
        "fraud": "is_fraud",
    },
    attributes={"x": "v1"},
)
HEADER = "id,at,who,where,amount,fraud,x\n"
GOOD = "1,2026-01-01T00:00:00Z,u,t,5.5,0,0.1\n"


def read(
    table: TableFile, mapping: Mapping, labels: LabelRule | None = None
) -> tuple[list[Transactions], list[Reject]]:
    found, rejects = [], []
    for batch in table.batches(mapping.required):
        transactions, bad = to_transactions(
            batch, mapping, labels or LabelRule(), NOW, find_formats(batch, mapping, None)
        )
        found.append(transactions)
        rejects += bad
    return found, rejects


@pytest.fixture
def csv(tmp_path: Path) -> Callable[[str], TableFile]:
    def write(text: str) -> TableFile:
        path = tmp_path / "file.csv"
        path.write_text(text)
        return open_table(path)

    return write


def test_a_row_becomes_a_transaction_with_its_label_after_the_delay(csv: Callable[[str], TableFile]) -> None:
    text = HEADER + GOOD + "2,2026-01-01T00:00:01.500Z,,,7,1,\n"
    [transactions], rejects = read(csv(text), PLAIN, LabelRule(timedelta(days=2)))
    assert rejects == []
    assert list(transactions.transaction_id) == ["1", "2"]
    assert list(transactions.user_id) == ["u", None]
    assert list(transactions.terminal_id) == ["t", None]
    assert transactions.amount.tolist() == [5.5, 7.0]
    assert transactions.attributes[0].tolist() == [0.1]
    assert np.isnan(transactions.attributes[1]).all()
    second = 1_767_225_601_500
    assert transactions.occurred_ms.tolist() == [second - 1_500, second]
    assert transactions.reported_ms.tolist() == [NEVER, second + 2 * 86_400_000]


def test_genuine_labels_are_reported_on_demand_and_unknown_ones_never(csv: Callable[[str], TableFile]) -> None:
    text = HEADER + GOOD + "2,2026-01-01T00:00:00Z,u,t,5.5,,0.1\n"
    [transactions], _ = read(csv(text), PLAIN, LabelRule(genuine=True))
    assert (transactions.reported_ms != NEVER).tolist() == [True, False]
    [silent], _ = read(csv(text), PLAIN, LabelRule(delay=None, genuine=True))
    assert (silent.reported_ms == NEVER).all()


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        (",2026-01-01T00:00:00Z,u,t,5.5,0,0.1", "invalid_field", "transaction_id: missing"),
        ("1," + "9" * 40 + ",u,t,5.5,0,0.1", "invalid_field", "occurred_at"),
        ("1,,u,t,5.5,0,0.1", "invalid_field", "occurred_at"),
        ("1,2026-13-01,u,t,5.5,0,0.1", "invalid_field", "occurred_at"),
        ("1,2026-03-03T00:00:00Z,u,t,5.5,0,0.1", "time_in_future", "occurred_at"),
        ("1,2026-01-01T00:00:00Z,u,t,ten,0,0.1", "invalid_field", "amount: not a number"),
        ("1,2026-01-01T00:00:00Z,u,t,,0,0.1", "invalid_field", "amount: missing"),
        ("1,2026-01-01T00:00:00Z,u,t,NaN,0,0.1", "invalid_field", "amount: missing"),
        ("1,2026-01-01T00:00:00Z,u,t,inf,0,0.1", "invalid_field", "amount: missing or not finite"),
        ("1,2026-01-01T00:00:00Z,u,t,-1,0,0.1", "invalid_field", "amount: negative"),
        ("1,2026-01-01T00:00:00Z,u,t,1e10,0,0.1", "invalid_field", "amount: above 1e9"),
        ("1,2026-01-01T00:00:00Z,u,t,5.5,perhaps,0.1", "invalid_field", "is_fraud"),
        ("1,2026-01-01T00:00:00Z,u,t,5.5,0,abc", "invalid_field", "attributes.v1: not a number"),
        ("1,2026-01-01T00:00:00Z,u,t,5.5,0,-inf", "invalid_field", "attributes.v1: not finite"),
        ("1,2026-01-01T00:00:00Z," + "u" * 129 + ",t,5.5,0,1", "invalid_field", "user_id: longer"),
        ("1,2026-01-01T00:00:00Z,u", "malformed_row", "3 fields; the header has 7"),
        ("1,2026-01-01T00:00:00Z,u,t,5.5,0,0.1,8", "malformed_row", "8 fields; the header has 7"),
    ],
)
def test_a_bad_row_is_told_apart_by_number_and_reason_and_its_neighbours_pass(
    csv: Callable[[str], TableFile], row: str, reason: str, detail: str
) -> None:
    table = csv(HEADER + GOOD + row + "\n" + GOOD)
    found, [reject] = read(table, PLAIN)
    assert sum(map(len, found)) == 2
    assert (reject.row, reject.reason) == (2, reason)
    assert detail in reject.detail
    assert table.rows == 3


def test_rows_keep_their_number_behind_rows_that_are_none(csv: Callable[[str], TableFile]) -> None:
    mapping = Mapping(columns={"at": "occurred_at", "amount": "amount"}, id_prefix="f-")
    good, short = "2026-01-01T00:00:00Z,1\n", "2026-01-01T00:00:00Z\n"
    [transactions], rejects = read(csv("at,amount\n" + good + short + short + good + "x,1\n" + good + short), mapping)
    assert list(transactions.transaction_id) == ["f-000000001", "f-000000004", "f-000000006"]
    assert sorted(reject.row for reject in rejects) == [2, 3, 5, 7]


def test_numbers_hold_where_the_parser_has_read_ahead(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    good, short = "2026-01-01T00:00:00Z," + "1" * 200 + "\n", "2026-01-01T00:00:00Z\n"
    path.write_text("at,amount\n" + "".join(short if n % 1_000 == 0 else good for n in range(1, 50_001)))
    table = open_table(path)
    batches = list(table.batches(["at", "amount"]))
    assert len(batches) > 1
    numbers = np.concatenate([batch.numbers for batch in batches])
    assert numbers.tolist() == [n for n in range(1, 50_001) if n % 1_000]
    assert [row.row for batch in batches for row in batch.malformed] == list(range(1_000, 50_001, 1_000))


def test_old_line_ends_are_read_too(csv: Callable[[str], TableFile]) -> None:
    [transactions], _ = read(csv((HEADER + GOOD + GOOD).replace("\n", "\r\n")), PLAIN)
    assert len(transactions) == 2


def test_a_limit_takes_the_first_rows_of_the_file_bad_ones_included(csv: Callable[[str], TableFile]) -> None:
    table = csv(HEADER + GOOD + "short\n" + GOOD + GOOD)
    [batch] = table.batches(PLAIN.required)
    transactions, rejects = to_transactions(batch.head(3), PLAIN, LabelRule(), NOW, find_formats(batch, PLAIN, None))
    assert (len(transactions), [r.row for r in rejects]) == (2, [2])
    transactions, rejects = to_transactions(batch.head(1), PLAIN, LabelRule(), NOW, find_formats(batch, PLAIN, None))
    assert (len(transactions), rejects) == (1, [])


def test_times_without_a_zone_are_the_mappings_and_times_with_one_keep_theirs(csv: Callable[[str], TableFile]) -> None:
    mapping = Mapping(
        columns={"at": "occurred_at", "amount": "amount"}, id_prefix="f-", time=TimeRule(zone="Europe/Madrid")
    )
    [transactions], _ = read(csv("at,amount\n2025-07-01 12:00:00,1\n2025-07-01T12:00:00+00:00,1\n"), mapping)
    assert (transactions.occurred_ms[1] - transactions.occurred_ms[0]) / 3_600_000 == 2


def test_numbers_count_from_the_mappings_base(csv: Callable[[str], TableFile]) -> None:
    rule = TimeRule(unit="s", base=datetime(2013, 9, 1, tzinfo=UTC))
    mapping = Mapping(columns={"t": "occurred_at", "amount": "amount"}, id_prefix="f-", time=rule)
    [transactions], _ = read(csv("t,amount\n1.5,1\n"), mapping)
    assert transactions.occurred_ms.tolist() == [int(datetime(2013, 9, 1, tzinfo=UTC).timestamp()) * 1_000 + 1_500]


def handbook(rows: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "TRANSACTION_ID": range(rows),
            "TX_DATETIME": pd.date_range("2018-04-01", periods=rows, freq="min"),
            "CUSTOMER_ID": [7] * rows,
            "TERMINAL_ID": [9] * rows,
            "TX_AMOUNT": [1.25] * rows,
            "TX_FRAUD": [0] * rows,
        }
    )


def test_parquet_and_gzipped_csv_of_one_table_give_the_same_transactions(tmp_path: Path) -> None:
    frame = handbook(50)
    frame.to_parquet(tmp_path / "a")
    (tmp_path / "b").write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    results = []
    for name in ("a", "b"):
        table = open_table(tmp_path / name)
        _, mapping = detect(table.columns, name)
        [transactions], rejects = read(table, mapping)
        assert (table.rows, rejects) == (50, [])
        results.append(transactions)
    first, second = results
    for column in ("transaction_id", "user_id", "terminal_id", "occurred_ms", "amount"):
        assert getattr(first, column).tolist() == getattr(second, column).tolist()
    assert first.transaction_id[3] == "hb-3"
    assert first.user_id[0] == "7"


def test_ids_that_pandas_turned_into_floats_stay_whole_numbers(tmp_path: Path) -> None:
    frame = handbook(3).astype({"CUSTOMER_ID": float})
    frame.loc[1, "CUSTOMER_ID"] = None
    frame.to_parquet(tmp_path / "a.parquet")
    table = open_table(tmp_path / "a.parquet")
    [transactions], _ = read(table, detect(table.columns, "a")[1])
    assert list(transactions.user_id) == ["7", None, "7"]


@pytest.mark.parametrize("content", [b"", b"PAR1 but no more", b"\x1f\x8bno gzip"])
def test_a_file_that_is_none_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match="broken"):
        open_table(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="absent"):
        open_table(tmp_path / "absent.csv")
