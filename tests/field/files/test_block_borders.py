"""Rows and their numbers where a file is read in blocks: whatever stands at the border of two."""

from __future__ import annotations

from pathlib import Path

import pytest

from centinela.datasets import records
from tests.field.files.support import PLAIN, read

ROWS = 40
QUOTED = '"line 1\nline 2, ""quoted"""'


def content(odd: str) -> str:
    rows = [f"2026-01-05 10:00,{n},{QUOTED if n % 3 == 0 else 'u'}" for n in range(1, ROWS + 1)]
    rows[19] = odd
    return "at,amount,user\r\n" + "\r\n".join(rows) + "\r\n"


@pytest.mark.parametrize("size", [*range(60, 100), 1_000])
@pytest.mark.parametrize("odd", ["short", '2026-01-05 10:00,1,"not closed', "2026-01-05 10:00,20,u"])
def test_rows_are_the_same_at_any_block_size(
    odd: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "BLOCK_BYTES", size)
    monkeypatch.setattr(records, "RECORD_BYTES", 200)
    (tmp_path / "t.csv").write_bytes(content(odd).encode())

    found = read(tmp_path / "t.csv", PLAIN)

    good = [n for n in range(1, ROWS + 1) if n != 20 or odd.endswith("u")]
    texts = ["\n".join(("line 1", 'line 2, "quoted"')) if n % 3 == 0 else "u" for n in good]
    assert found.rows == [f"f-{n:09d} 2026-01-05T10:00:00Z {text} {n}" for n, text in zip(good, texts, strict=True)]
    assert [row for row, _ in found.rejects] == ([] if odd.endswith("u") else [20])


def test_a_cell_with_line_breaks_at_the_border_of_a_real_block(tmp_path: Path) -> None:
    row = f"2026-01-05 10:00,1,{QUOTED},\n"
    for shift in range(0, len(row), 4):
        start = "at,amount,user,note\n2026-01-05 10:00,1,u,"
        filler = "x" * (records.BLOCK_BYTES - len(start) - shift)
        (tmp_path / "t.csv").write_text(f"{start}{filler}\n{row * 3}")
        found = read(tmp_path / "t.csv", PLAIN)
        assert [line.split()[0] for line in found.rows] == [f"f-{n:09d}" for n in (1, 2, 3, 4)]
        assert found.rejects == []


def test_a_limit_counts_rows_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content("short"))
    found = read(tmp_path / "t.csv", PLAIN, limit=21)
    assert (len(found.rows), [row for row, _ in found.rejects]) == (20, [20])
