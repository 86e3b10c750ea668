"""Parquet columns of every type that writers choose, and what each becomes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from centinela.datasets.mapping import MappingError
from centinela.datasets.table import UnreadableFile
from tests.field.files.support import PLAIN, Read, read

EIGHT = "2026-01-05T08:00:00Z"
AWARE = datetime(2026, 1, 5, 8, tzinfo=UTC)
NAIVE = AWARE.replace(tzinfo=None)
MS = 1_767_600_000_000


def column(path: Path, name: str, values: pa.Array, mapping: str = PLAIN, **options: object) -> Read:
    """Rows with *values* in the column *name*."""
    rows = len(values)
    table = {"at": pa.array([AWARE] * rows), "amount": pa.array([1.5] * rows), "user": pa.array(["u"] * rows)}
    parquet.write_table(pa.table(table | {name: values}), path / "t.parquet", **options)
    return read(path / "t.parquet", mapping)


USERS: dict[str, tuple[Callable[[], pa.Array], list[str]]] = {
    "text": (lambda: pa.array(["a", "", None, "nan", " b "]), ["a", "None", "None", "None", "b"]),
    "integers": (lambda: pa.array([1234, None]), ["1234", "None"]),
    "floats, because some are missing": (lambda: pa.array([1234.0, float("nan"), None]), ["1234", "None", "None"]),
    "floats with a fraction": (lambda: pa.array([1234.5, 7.0]), ["1234.5", "7"]),
    "short floats": (lambda: pa.array([7.0, None], pa.float32()), ["7", "None"]),
    "text that was floats": (lambda: pa.array(["1234.0", "1234"]), ["1234", "1234"]),
    "decimals, as Oracle's NUMBER": (lambda: pa.array([Decimal("1234.0000")], pa.decimal128(20, 4)), ["1234"]),
    "a dictionary": (lambda: pa.array(["a", None, "a"]).dictionary_encode(), ["a", "None", "a"]),
    "bytes without a type, as Impala writes text": (lambda: pa.array([b"a", b""]), ["a", "None"]),
    "long text": (lambda: pa.array(["a"], pa.large_string()), ["a"]),
    "text views": (lambda: pa.array(["a"], pa.string_view()), ["a"]),
    "UUIDs": (
        lambda: pa.array([uuid.UUID(int=7).bytes], pa.uuid()),
        ["00000000-0000-0000-0000-000000000007"],
    ),
    "large integers": (lambda: pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
    "truths": (lambda: pa.array([True]), ["true"]),
    "nothing": (lambda: pa.nulls(1), ["None"]),
}


@pytest.mark.parametrize("kind", USERS)
def test_users(kind: str, tmp_path: Path) -> None:
    make, expected = USERS[kind]
    found = column(tmp_path, "user", make())
    assert [row.split(" ", 2)[2].rsplit(" ", 1)[0] for row in found.rows] == expected
    assert found.rejects == []


@pytest.mark.parametrize(
    ("values", "detail"),
    [
        (pa.array([4.5e18, 1.0]), "a float too large to be exact"),
        (pa.array([2.0**25, 1.0], pa.float32()), "a float too large to be exact"),
        (pa.array([float("inf"), 1.0]), "not finite"),
        (pa.array([b"\xff\xfe", b"u"]), "bytes that are not text"),
    ],
)
def test_users_that_are_none(values: pa.Array, detail: str, tmp_path: Path) -> None:
    found = column(tmp_path, "user", values)
    assert len(found.rows) == 1
    [(row, why)] = found.rejects
    assert row == 1
    assert detail in why


TIMES: dict[str, pa.Array] = {
    "microseconds in UTC": pa.array([AWARE]),
    "another zone": pa.array([AWARE], pa.timestamp("us", "America/New_York")),
    "no zone": pa.array([NAIVE]),
    "seconds": pa.array([NAIVE], pa.timestamp("s")),
    "nanoseconds": pa.array([NAIVE], pa.timestamp("ns")),
    "nanoseconds that are no whole microsecond": pa.array([MS * 1_000_000 + 1], pa.timestamp("ns", "UTC")),
    "text with an offset of hours": pa.array(["2026-01-05 10:00:00+02"]),
    "a dictionary of text": pa.array(["2026-01-05 08:00:00"]).dictionary_encode(),
}


@pytest.mark.parametrize("kind", TIMES)
def test_times(kind: str, tmp_path: Path) -> None:
    assert [row.split()[1] for row in column(tmp_path, "at", TIMES[kind]).rows] == [EIGHT]


def test_times_as_spark_and_impala_write_them(tmp_path: Path) -> None:
    found = column(tmp_path, "at", pa.array([NAIVE], pa.timestamp("ns")), use_deprecated_int96_timestamps=True)
    assert [row.split()[1] for row in found.rows] == [EIGHT]


def test_dates_are_midnight_in_the_mappings_zone(tmp_path: Path) -> None:
    mapping = f"{PLAIN}time: {{zone: Europe/Madrid}}\n"
    for kind in (pa.date32(), pa.date64()):
        found = column(tmp_path, "at", pa.array([date(2026, 1, 5)], kind), mapping)
        assert [row.split()[1] for row in found.rows] == ["2026-01-04T23:00:00Z"]


@pytest.mark.parametrize("values", [pa.array([MS]), pa.array([float(MS)]), pa.array([Decimal(MS)])])
def test_numbers_are_times_with_a_unit_and_refused_without(values: pa.Array, tmp_path: Path) -> None:
    found = column(tmp_path, "at", values, f"{PLAIN}time: {{unit: ms}}\n")
    assert [row.split()[1] for row in found.rows] == [EIGHT]
    with pytest.raises(MappingError, match=r"column at: a number: set time\.unit"):
        column(tmp_path, "at", values)


@pytest.mark.parametrize(
    ("values", "detail"),
    [
        (pa.array([None, AWARE]), "missing"),
        (pa.array([2**52, MS // 1000], pa.timestamp("s")), "out of range"),
        (pa.array([-1, MS // 1000], pa.timestamp("s")), "before 1970"),
        (pa.array([32_503_680_000, MS // 1000], pa.timestamp("s")), "more than a day ahead"),
    ],
)
def test_times_that_are_none(values: pa.Array, detail: str, tmp_path: Path) -> None:
    found = column(tmp_path, "at", values)
    assert [row.split()[1] for row in found.rows] == [EIGHT]
    [(row, why)] = found.rejects
    assert row == 1
    assert detail in why


AMOUNTS: dict[str, pa.Array] = {
    "decimals": pa.array([Decimal("12.50")]),
    "text": pa.array(["12.50"]),
    "text with a decimal comma": pa.array(["12,50"]),
    "short floats": pa.array([12.5], pa.float32()),
    "half floats": pa.array(np.array([12.5], np.float16)),
}


@pytest.mark.parametrize("kind", AMOUNTS)
def test_amounts(kind: str, tmp_path: Path) -> None:
    assert [row.split()[-1] for row in column(tmp_path, "amount", AMOUNTS[kind]).rows] == ["12.5"]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("amount", pa.array([{"value": 1.5, "currency": "EUR"}]), r"column amount is nested \(amount.value, amount.cu"),
        ("user", pa.array([["u"]]), r"column user is a list.*: write one value a row"),
        ("at", pa.array([1], pa.time32("s")), "holds time32"),
        ("amount", pa.array([NAIVE]), "the column of amount holds timestamp"),
    ],
)
def test_a_column_of_a_type_that_does_not_fit_is_refused_by_name(
    name: str, values: pa.Array, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UnreadableFile, match=message):
        column(tmp_path, name, values)


def test_a_file_named_csv_that_is_parquet(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"at": [AWARE], "amount": [1.5], "user": ["u"]}), tmp_path / "t.csv")
    assert read(tmp_path / "t.csv", PLAIN).rows == [f"f-000000001 {EIGHT} u 1.5"]
