"""CSV files: recognised by their first rows, then read block by block. Every column is text, so that a value that is
not a number loses its row, not the file."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.csv as arrow_csv

from centinela.datasets.containers import BROKEN, Opener, require_text
from centinela.datasets.csv_dialect import Dialect, sniff
from centinela.datasets.encodings import Utf8Stream, detect_encoding
from centinela.datasets.options import FileOptions
from centinela.datasets.records import BLOCK_BYTES, Block
from centinela.datasets.table import Batch, Malformed, TableFile, UnreadableFile

SAMPLE_BYTES = 1 << 20
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "\\N")
_UNCLOSED = "a quote is not closed, or text follows a closing quote"
_NOT_UTF8 = "not text in this encoding: if every such row comes here, pass another --encoding, such as cp1252"


def open_csv(path: Path, opener: Opener, packed: str, options: FileOptions) -> TableFile:
    """Open the CSV file *path*.

    Args:
        packed: The name of its compression, if any.

    Raises:
        UnreadableFile: It is no CSV file, or its encoding is not known.
    """
    with opener() as stream:
        raw = stream.read(SAMPLE_BYTES)
    require_text(raw[:512], packed, str(path))
    encoding = options.encoding or detect_encoding(raw, str(path))
    with opener() as stream:
        dialect = sniff(Utf8Stream(stream, encoding).read(SAMPLE_BYTES), options, str(path))
    with opener() as stream:
        rows = _count_lines(stream) - 1
    parts = [str(dialect), *([encoding] if encoding != "utf-8" else []), *([packed] if packed else [])]

    def batches(columns: Sequence[str]) -> Iterator[Batch]:
        return _Reader(path, opener, encoding, dialect, columns).batches()

    return TableFile(dialect.header, max(0, rows), batches, ", ".join(parts))


def _count_lines(stream: IO[bytes]) -> int:
    lines, returns, last = 0, 0, b"\n"
    while block := stream.read(BLOCK_BYTES):
        lines, returns, last = lines + block.count(b"\n"), returns + block.count(b"\r"), block[-1:]
    return (lines or returns) + (last not in b"\r\n\x00")


class _Rest:
    """What was read already, then the stream."""

    def __init__(self, begun: bytes, stream: Utf8Stream) -> None:
        self._begun = begun
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        begun, self._begun = self._begun, b""
        return begun or self._stream.read(size)


class _Reader:
    """Reads *columns* of a file once."""

    def __init__(self, path: Path, opener: Opener, encoding: str, dialect: Dialect, columns: Sequence[str]) -> None:
        self._path = path
        self._opener = opener
        self._encoding = encoding
        self._dialect = dialect
        self._columns = list(dict.fromkeys(columns))
        self._places = [str(dialect.header.index(name)) for name in self._columns]
        self._rows = 0

    def batches(self) -> Iterator[Batch]:
        with closing(self._opener()) as stream:
            try:
                text = Utf8Stream(stream, self._encoding)
                source = _Rest(text.skip(self._dialect.start), text)
                for block in self._dialect.cutter().blocks(source):
                    if block.content.strip():
                        yield self._parse(block)
            except BROKEN as error:
                raise UnreadableFile(f"{self._path} after row {self._rows}: {error}") from error

    def _parse(self, block: Block) -> Batch:
        rejected: list[Malformed] = []
        first, broken = self._rows + 1, deque(block.broken)

        def reject(row: arrow_csv.InvalidRow) -> str:
            number = self._rows + row.number
            if broken and not row.text.strip(self._dialect.separator):
                rejected.append(Malformed(number, _UNCLOSED, _shown(broken.popleft())))
            else:
                detail = f"{row.actual_columns} fields; the header has {row.expected_columns}"
                rejected.append(Malformed(number, detail, row.text))
            return "skip"

        table = arrow_csv.read_csv(
            io.BytesIO(block.content),
            arrow_csv.ReadOptions(
                use_threads=False,
                block_size=len(block.content) + 1,
                column_names=[str(place) for place in range(len(self._dialect.header))],
            ),
            arrow_csv.ParseOptions(
                delimiter=self._dialect.separator,
                quote_char=self._dialect.quote,
                newlines_in_values=True,
                invalid_row_handler=reject,
            ),
            arrow_csv.ConvertOptions(
                include_columns=self._places,
                column_types=dict.fromkeys(self._places, pa.binary()),
                strings_can_be_null=True,
                null_values=list(MISSING),
            ),
        )
        self._rows += table.num_rows + len(rejected)
        numbers = np.setdiff1d(np.arange(first, self._rows + 1), [row.row for row in rejected], assume_unique=True)
        return self._as_text(Batch(_one_batch(table.rename_columns(self._columns)), numbers, tuple(rejected)))

    def _as_text(self, batch: Batch) -> Batch:
        """*batch* with columns of text; rows that are not text, or repeat the header, become malformed."""
        details = self._undecodable(batch.table) | self._repeated_headers(batch.table)
        odd = np.fromiter(details, np.int64, len(details))
        rejected = tuple(
            Malformed(
                int(batch.numbers[at]),
                details[at],
                self._dialect.separator.join(_shown(cell.as_py() or b"") for cell in _cells(batch.table, at)),
            )
            for at in sorted(details)
        )
        good = np.setdiff1d(np.arange(batch.table.num_rows), odd)
        table = batch.table.take(pa.array(good)) if len(odd) else batch.table
        text = pa.RecordBatch.from_arrays([column.cast(pa.string()) for column in table.columns], self._columns)
        return Batch(text, batch.numbers[good], (*batch.malformed, *rejected))

    def _undecodable(self, table: pa.RecordBatch) -> dict[int, str]:
        details: dict[int, str] = {}
        for column in table.columns:
            try:
                column.cast(pa.string())
            except pa.ArrowInvalid:
                details |= {at: _NOT_UTF8 for at, cell in enumerate(column.to_pylist()) if not _decodes(cell)}
        return details

    def _repeated_headers(self, table: pa.RecordBatch) -> dict[int, str]:
        same = np.ones(table.num_rows, dtype=bool)
        for name, column in zip(self._columns, table.columns, strict=True):
            equal = compute.equal(column, pa.scalar(name.encode(), pa.binary()))
            same &= compute.fill_null(equal, False).to_numpy(zero_copy_only=False)
        return {int(at): "repeats the header: files were joined" for at in np.flatnonzero(same)}


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    """The rows of *table*, which was read in one block."""
    columns = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, table.column_names)


def _cells(table: pa.RecordBatch, at: int) -> list[pa.Scalar]:
    return [column[at] for column in table.columns]


def _decodes(cell: bytes | None) -> bool:
    try:
        (cell or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _shown(cell: bytes) -> str:
    return cell[:10_000].decode("utf-8", "backslashreplace").rstrip("\r\n")
