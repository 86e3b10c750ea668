"""CSV (also gzipped) and Parquet files as batches of numbered rows."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from centinela.errors import CentinelaError

BATCH_ROWS = 20_000
_BROKEN = (OSError, EOFError, zlib.error, pa.ArrowException)
_BLOCK_BYTES = 4 << 20
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]


class UnreadableFile(CentinelaError):
    """The file does not exist, is neither CSV nor Parquet, or is truncated."""


@dataclass(frozen=True)
class Malformed:
    """A row with another number of fields than the header."""

    row: int
    detail: str
    text: str


@dataclass(frozen=True)
class Batch:
    """Rows of a file: ``numbers`` (n,) counts data rows from 1; ``malformed`` were found since the batch before."""

    table: pa.RecordBatch
    numbers: NDArray[np.int64]
    malformed: tuple[Malformed, ...] = ()

    def head(self, rows: int) -> Batch:
        """The first *rows* rows, malformed ones included, in the order of the file."""
        if len(self.numbers) + len(self.malformed) <= rows:
            return self
        last = np.sort(np.concatenate([self.numbers, [row.row for row in self.malformed]]))[rows - 1]
        kept = int(np.searchsorted(self.numbers, last, side="right"))
        return Batch(
            self.table.slice(0, kept), self.numbers[:kept], tuple(row for row in self.malformed if row.row <= last)
        )


@dataclass(frozen=True)
class TableFile:
    """A file that was opened: its columns, its rows (counted, not parsed), and a way to read selected columns."""

    columns: list[str]
    rows: int
    batches: Callable[[Sequence[str]], Iterator[Batch]]


def open_table(path: Path) -> TableFile:
    """Open *path* by its content: Parquet, gzipped CSV or CSV.

    Raises:
        UnreadableFile: It cannot be read at all.
    """
    try:
        with path.open("rb") as stream:
            magic = stream.read(4)
        if magic == b"PAR1":
            return _open_parquet(path)
        return _open_csv(path, zipped=magic[:2] == b"\x1f\x8b")
    except (*_BROKEN, UnicodeDecodeError, csv.Error) as error:
        raise UnreadableFile(f"{path}: {error}") from error


def _open_parquet(path: Path) -> TableFile:
    file = parquet.ParquetFile(path)

    def batches(columns: Sequence[str]) -> Iterator[Batch]:
        at = 1
        try:
            for table in file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns), use_threads=False):
                yield Batch(table, np.arange(at, at + table.num_rows))
                at += table.num_rows
        except _BROKEN as error:
            raise UnreadableFile(f"{path} after row {at - 1}: {error}") from error

    return TableFile(file.schema_arrow.names, file.metadata.num_rows, batches)


def _bytes(path: Path, zipped: bool) -> IO[bytes]:
    return gzip.open(path, "rb") if zipped else path.open("rb")  # type: ignore[return-value]


def _open_csv(path: Path, zipped: bool) -> TableFile:
    with _bytes(path, zipped) as stream:
        header = next(csv.reader(io.TextIOWrapper(stream, "utf-8-sig")), None)
        if not header:
            raise UnreadableFile(f"{path} is empty")
    with _bytes(path, zipped) as stream:
        rows = _count_lines(stream) - 1

    def batches(columns: Sequence[str]) -> Iterator[Batch]:
        return _read_csv(path, zipped, columns)

    return TableFile(header, rows, batches)


def _count_lines(stream: IO[bytes]) -> int:
    lines, last = 0, b"\n"
    while block := stream.read(_BLOCK_BYTES):
        lines, last = lines + block.count(b"\n"), block[-1:]
    return lines + (last != b"\n")


@dataclass
class _Malformed:
    """Collects the rows that the parser rejects, and numbers those that it accepts."""

    rejected: list[Malformed] = field(default_factory=list)
    returned: int = 0
    at: int = 1

    def __call__(self, row: arrow_csv.InvalidRow) -> str:
        detail = f"{row.actual_columns} fields; the header has {row.expected_columns}"
        self.rejected.append(Malformed(row.number - 1, detail, row.text))
        return "skip"

    def numbers(self, count: int) -> tuple[NDArray[np.int64], tuple[Malformed, ...]]:
        """The numbers of the next *count* accepted rows, and the rows rejected since the last call.

        The parser reads ahead: rejected rows may come after those *count*.
        """
        new = tuple(self.rejected[self.returned :])
        self.returned = len(self.rejected)
        skipped = [row.row for row in self.rejected if row.row >= self.at]
        span = np.arange(self.at, self.at + count + len(skipped))
        kept = span[~np.isin(span, skipped)][:count]
        self.at = int(kept[-1]) + 1 if count else self.at
        return kept, new


def _read_csv(path: Path, zipped: bool, columns: Sequence[str]) -> Iterator[Batch]:
    """Every column as text: a value that is not a number must fail its row, not the file."""
    malformed = _Malformed()
    with _bytes(path, zipped) as stream:
        try:
            reader = arrow_csv.open_csv(
                stream,
                read_options=arrow_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
                parse_options=arrow_csv.ParseOptions(invalid_row_handler=malformed),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=list(columns),
                    column_types=dict.fromkeys(columns, pa.string()),
                    strings_can_be_null=True,
                    null_values=_MISSING,
                ),
            )
            for table in reader:
                numbers, new = malformed.numbers(table.num_rows)
                yield Batch(table, numbers, new)
        except _BROKEN as error:
            raise UnreadableFile(f"{path} after row {malformed.at - 1}: {error}") from error
        _, new = malformed.numbers(0)
        if new:
            yield Batch(
                pa.RecordBatch.from_pydict({name: pa.array([], pa.string()) for name in columns}),
                np.empty(0, np.int64),
                new,
            )
