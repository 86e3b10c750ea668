"""The one way from files to transactions, for ``replay``, ``backfill`` and the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from centinela.datasets.columns import Transactions
from centinela.datasets.files import open_table
from centinela.datasets.mapping import Mapping, detect, load_mapping
from centinela.datasets.options import FileOptions
from centinela.datasets.problems import Problems
from centinela.datasets.rows import Formats, LabelRule, Reject, find_formats, times_of, to_transactions
from centinela.datasets.table import Batch, TableFile, UnreadableFile
from centinela.events import DEFAULT_CURRENCY

_PACKED = ("", ".gz", ".zip", ".bz2", ".xz", ".zst")
_PATTERNS = ("*.parquet", *(f"*{kind}{packed}" for kind in (".csv", ".tsv") for packed in _PACKED))


@dataclass(frozen=True)
class Part:
    """Some rows of *file*: ``rows`` were read, and are transactions or rejected."""

    file: Path
    rows: int
    transactions: Transactions
    rejects: list[Reject]


@dataclass(frozen=True)
class Order:
    """How far *rows* are from the order of time: ``late`` are earlier than a row before them."""

    rows: int
    late: int


@dataclass(frozen=True)
class DataFiles:
    """Files of one layout. ``form`` and ``layout`` say what was recognised, ``rows`` is about how many there are."""

    tables: dict[Path, TableFile]
    mapping: Mapping
    layout: str
    options: FileOptions

    @property
    def rows(self) -> int:
        """All rows, good or not; counted by lines."""
        return sum(table.rows for table in self.tables.values())

    @property
    def form(self) -> str:
        """How the first file is written, for people."""
        return next(iter(self.tables.values())).form

    def parts(self, labels: LabelRule, now: datetime, limit: int | None = None) -> Iterator[Part]:
        """All rows in the order of the files, *limit* at most.

        Args:
            now: Times more than a day later than this are rejected.

        Raises:
            UnreadableFile: A file is damaged, or a column's type does not fit its field.
            MappingError: The mapping does not fit what a file holds.
        """
        for file, mapping, batch, formats in self._batches(limit):
            transactions, rejects = to_transactions(batch, mapping, labels, now, formats)
            yield Part(file, batch.rows, transactions, rejects)

    def order(self, limit: int | None = None) -> Order:
        """How far the first *limit* rows are from the order of time. Reads the files once. Raises as ``parts``."""
        rows, late, newest = 0, 0, np.iinfo(np.int64).min
        for _, mapping, batch, formats in self._batches(limit, only_times=True):
            problems = Problems(batch.table.num_rows)
            times = times_of(batch, mapping, formats, problems)[~problems.bad]
            before = np.maximum.accumulate(np.concatenate([[newest], times]))
            late += int(np.count_nonzero(times < before[:-1]))
            rows, newest = rows + batch.rows, before[-1]
        return Order(rows, late)

    def _batches(self, limit: int | None, only_times: bool = False) -> Iterator[tuple[Path, Mapping, Batch, Formats]]:
        left = limit
        for file, table in self.tables.items():
            mapping = self._mapping_of(file)
            columns = [mapping.column("occurred_at") or ""] if only_times else mapping.required
            formats: Formats | None = None
            for batch in table.batches(columns):
                if left == 0:
                    return
                if formats is None:
                    formats = find_formats(batch, mapping, self.options.decimal)
                if left is not None:
                    batch = batch.head(left)
                    left -= batch.rows
                yield file, mapping, batch, formats

    def _mapping_of(self, file: Path) -> Mapping:
        """The mapping, with ids that name the file too where rows of several files are numbered."""
        if len(self.tables) == 1 or self.mapping.column("transaction_id") is not None:
            return self.mapping
        return self.mapping.with_prefix(f"{self.mapping.id_prefix}{file.name}-")


def open_files(
    path: Path,
    mapping: str | None = None,
    options: FileOptions | None = None,
    *,
    id_prefix: str | None = None,
    base_currency: str = DEFAULT_CURRENCY,
) -> DataFiles:
    """A file, or all files under a folder.

    Args:
        mapping: Name or path; None finds it by the columns of the first file.
        id_prefix: In place of the mapping's.
        base_currency: That of the amounts, where neither the mapping nor a column names one.

    Raises:
        UnreadableFile: There is none, or one cannot be read.
        MappingError: The mapping is invalid, or does not fit.
    """
    options = options or FileOptions()
    if path.is_dir():
        found = sorted(file for pattern in _PATTERNS for file in path.rglob(pattern) if not _hidden(file, path))
        if not found:
            raise UnreadableFile(f"{path} has no file that ends in .parquet, .csv or .tsv")
    else:
        found = [path]
    tables = {file: open_table(file, options) for file in found}
    first, columns = found[0], tables[found[0]].columns
    layout, chosen = (mapping, load_mapping(mapping)) if mapping else detect(columns, str(first))
    for file, table in tables.items():
        chosen.require(table.columns, str(file))
    if id_prefix is not None:
        chosen = chosen.with_prefix(id_prefix)
    return DataFiles(tables, chosen.with_default_currency(base_currency), layout, options)


def _hidden(file: Path, folder: Path) -> bool:
    """Whether a writer such as Spark keeps *file* for itself (``.part-0.csv.crc``, ``_temporary``)."""
    return any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
