"""Whatever the cells of a file hold, each row is rejected, or becomes a record that every consumer decodes."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from centinela.codec import Decoder, time_fault
from centinela.datasets.mapping import MappingError
from centinela.datasets.options import FileOptions
from centinela.datasets.rows import LabelRule
from centinela.datasets.source import Part, open_files
from centinela.datasets.table import UnreadableFile
from centinela.events import TransactionReceived
from centinela_ingest.encoding import transaction_records

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MAPPING = """
columns: {at: occurred_at, amount: amount, user: user_id, id: transaction_id, fraud: is_fraud, iso: currency}
attributes: {x: v1}
"""
OFTEN = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

offsets = st.sampled_from(["", "Z", "+02", "-23:59", "+23:59", " UTC", "+0530", "+99:99", "[UTC]"])
times = (
    st.builds(lambda at, offset: f"{at.isoformat(' ')}{offset}", st.datetimes(), offsets)
    | st.builds(lambda at: f"{at:%d.%m.%Y %H:%M}", st.datetimes())
    | st.integers().map(str)
    | st.floats().map(str)
)
numbers = (
    st.floats().map(str)
    | st.integers().map(str)
    | st.floats(0, 1e9).map(lambda value: f"{value:,.2f} €")
    | st.text("0123456789.,' -+eE$€", max_size=9)
)
texts = st.text(max_size=130) | st.integers().map(str) | st.floats().map(str)
rows = st.lists(
    st.tuples(times | texts, numbers | texts, texts, texts, st.sampled_from("01 tfx"), texts, numbers | texts),
    min_size=1,
    max_size=8,
)
NAMES = ["at", "amount", "user", "id", "fraud", "iso", "x"]


def account(path: Path, mapping: str, options: FileOptions | None = None) -> int | str:
    """How many rows *path* has, by those that are rejected and those that a consumer decodes; or why it is refused."""
    path.with_name("mapping.yaml").write_text(mapping)
    try:
        files = open_files(path, str(path.with_name("mapping.yaml")), options)
        return sum(rows_of(part) for part in files.parts(LabelRule(), NOW))
    except (UnreadableFile, MappingError) as refused:
        return str(refused)


def rows_of(part: Part) -> int:
    good = part.transactions
    records = list(transaction_records(good, 0, len(good), topic="t", source="s", verdict=None))
    for record in records:
        assert time_fault(Decoder(TransactionReceived).decode(record.value), 0, NOW) is None
    assert len(records) + len(part.rejects) == part.rows
    return part.rows


@OFTEN
@given(rows)
def test_cells_of_any_text(tmp_path: Path, rows: list[tuple[str, ...]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([NAMES, *rows])
    (tmp_path / "t.csv").write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))
    found = account(tmp_path / "t.csv", MAPPING, FileOptions(",", None, "utf-8"))
    assert found == len(rows) or "time." in str(found), "only times that are all numbers, or all ambiguous, are refused"


KINDS = [
    pa.float64(),
    pa.float32(),
    pa.int64(),
    pa.uint64(),
    pa.string(),
    pa.binary(),
    pa.timestamp("s"),
    pa.timestamp("ns", "UTC"),
    pa.date32(),
    pa.date64(),
    pa.decimal128(38, 6),
    pa.bool_(),
]


def values(kind: pa.DataType) -> st.SearchStrategy[object]:
    """Raw 8 bytes of *kind* where it has them, otherwise what Python has for it."""
    if pa.types.is_floating(kind):
        return st.floats(width=kind.bit_width)
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_string(kind):
        return st.text(max_size=140)
    if pa.types.is_binary(kind):
        return st.binary(max_size=10)
    if pa.types.is_decimal(kind):
        return st.decimals(-(10**30), 10**30, places=6)
    if pa.types.is_date64(kind):
        return st.integers(-(2**63) // 86_400_000 + 1, 2**63 // 86_400_000 - 1).map(lambda day: day * 86_400_000)
    if kind == pa.timestamp("s"):
        return st.integers(-(2**63) // 1_000 + 1, 2**63 // 1_000 - 1)  # Parquet stores them as milliseconds
    low, high = (-(2**31), 2**31 - 1) if kind == pa.date32() else (-(2**63), 2**63 - 1)
    return st.integers(0, 2**64 - 1) if kind == pa.uint64() else st.integers(low, high)


@OFTEN
@given(st.data(), st.sampled_from(NAMES), st.sampled_from(KINDS), st.sampled_from([None, "ns", "ms", "d"]))
def test_columns_of_any_type(
    tmp_path: Path, data: st.DataObject, name: str, kind: pa.DataType, unit: str | None
) -> None:
    column = data.draw(st.lists(st.none() | values(kind), min_size=1, max_size=4))
    good = {"at": NOW, "amount": 1.0, "user": "u", "id": "1", "fraud": False, "iso": "EUR", "x": 0.5}
    table = {other: pa.array([value] * len(column)) for other, value in good.items()} | {name: array(column, kind)}
    parquet.write_table(pa.table(table), tmp_path / "t.parquet")
    rule = f"time: {{unit: {unit}}}\n" if unit and name == "at" and not pa.types.is_temporal(kind) else ""
    found = account(tmp_path / "t.parquet", MAPPING + rule)
    refusals = ("the column of", "time.", "the type of a column")
    assert found == len(column) or any(refusal in str(found) for refusal in refusals)


def array(column: list[object], kind: pa.DataType) -> pa.Array:
    """*column* as *kind*; a time is given by its number, which may be one that Python's times do not reach."""
    if not pa.types.is_temporal(kind):
        return pa.array(column, kind)
    return pa.array(column, pa.int32() if kind == pa.date32() else pa.int64()).view(kind)


@pytest.mark.parametrize("user", ["\U0001f600" * 128, "\x00", "\u2028", "a" * 128])
def test_users_of_any_code_point(tmp_path: Path, user: str) -> None:
    row = f'2026-01-05,1,"{user}",1,0,EUR,1\n'
    (tmp_path / "t.csv").write_text(",".join(NAMES) + "\n" + row)
    assert account(tmp_path / "t.csv", MAPPING) == 1
