"""The layouts that ship, each with a small made-up file of its public columns; found by them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from centinela.datasets.source import open_files
from tests.field.files.support import read

LAYOUTS = Path(__file__).with_name("layouts")
EXPECTED = {
    "paysim": [
        "paysim-000000001 2017-01-01T00:00:00Z C1000000001 871.5",
        "paysim-000000002 2017-01-01T00:00:00Z C1000000002 430",
        "paysim-000000003 2017-01-01T01:00:00Z C1000000003 430",
        "paysim-000000004 2017-01-31T23:00:00Z C1000000001 12.25",
    ],
    "sparkov": [
        "sparkov-aaaabbbbccccddddeeeeffff00000001 2019-01-01T00:00:18Z 4000000000000002 4.97",
        "sparkov-aaaabbbbccccddddeeeeffff00000002 2019-01-01T00:00:44Z 30000000000004 107.23",
    ],
    "ieee-cis": [
        "ieee-3000001 2017-12-01T00:00:00Z 10001 68.5",
        "ieee-3000002 2017-12-01T00:01:09Z 10002 59",
    ],
    "banksim": [
        "banksim-000000001 2012-11-01T00:00:00Z C1000000001 4.55",
        "banksim-000000002 2012-11-01T00:00:00Z C1000000002 39.68",
        "banksim-000000003 2013-04-29T00:00:00Z C1000000001 267.9",
    ],
    "postgres": [
        "8b0e0d4e-0001 2026-01-05T08:00:00Z 1001 1234.5",
        "8b0e0d4e-0002 2026-01-05T04:30:00.123000Z 1002 7",
        "8b0e0d4e-0003 2026-01-05T08:00:00Z 1001 8.25",
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_layout_is_found_and_read(name: str) -> None:
    path = LAYOUTS / f"{name}.csv"
    assert open_files(path).layout == name
    found = read(path, None)
    assert (found.rows, found.rejects) == (EXPECTED[name], [])


def test_files_of_a_folder_are_read_by_name_and_their_numbered_rows_are_told_apart(tmp_path: Path) -> None:
    for month in ("month=01", "month=02"):
        (tmp_path / month).mkdir()
        shutil.copy(LAYOUTS / "banksim.csv", tmp_path / month / f"{month[-2:]}.csv")
        (tmp_path / month / ".01.csv").write_text("what a writer keeps for itself")
        (tmp_path / month / "01.csv.crc").write_text("a checksum")
    found = read(tmp_path, None)
    assert [row.split()[0] for row in found.rows] == [
        f"banksim-{month}.csv-{row:09d}" for month in ("01", "02") for row in (1, 2, 3)
    ]
