"""Whatever cells hold, and wherever blocks end, rows and their numbers are those that were written."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from centinela.datasets import records
from centinela.datasets.csv_file import MISSING
from centinela.datasets.files import open_table
from centinela.datasets.options import FileOptions
from centinela.datasets.records import RecordCutter

cells = st.text(st.sampled_from(",;\t|\"'\n\r ab1é€\U0001f600\x00\x85\u2028"), max_size=6)
tables = st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=12)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(tables, st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n", "\r"]), st.integers(1, 40), st.booleans())
def test_a_table_of_any_text_is_read_as_it_was_written(
    tmp_path: Path, rows: list[tuple[str, str, str]], separator: str, line_end: str, block: int, bom: bool
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b", "c"), *rows])
    (tmp_path / "t.csv").write_text(text.getvalue(), encoding="utf-8-sig" if bom else "utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "BLOCK_BYTES", block)
        batches = list(open_table(tmp_path / "t.csv", FileOptions(separator, None, "utf-8")).batches(["c", "a", "b"]))
    found = [
        row for batch in batches for row in zip(batch.numbers.tolist(), *batch.table.to_pydict().values(), strict=True)
    ]
    assert [(row.row, row.detail) for batch in batches for row in batch.malformed] == []
    assert found == [
        (number, *(None if cell in MISSING else cell for cell in (c, a, b))) for number, (a, b, c) in enumerate(rows, 1)
    ]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (b"a,b\nc\n", b"a,b\n"),
        (b'"a\nb",c\r\nd', b'"a\nb",c\r'),
        (b'a"b,c\n', b'a"b,c\n'),
        (b"no end", b"no end"),
        (b'"a\nb', b'"a\nb'),
    ],
)
def test_the_first_record_ends_at_a_line_end_outside_quotes(text: bytes, first: bytes) -> None:
    assert RecordCutter(b",", b'"', 2).first(text) == first
