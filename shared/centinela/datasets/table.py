"""A file of transactions as batches of numbered rows, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from centinela.errors import CentinelaError

BATCH_ROWS = 20_000


class UnreadableFile(CentinelaError):
    """The file does not exist, is in no format that is read, or is damaged. The message says what to do."""


@dataclass(frozen=True)
class Malformed:
    """A row that has no columns to speak of: another number of fields than the header, or bytes that are not text."""

    row: int
    detail: str
    text: str


@dataclass(frozen=True)
class Batch:
    """Rows of a file: ``numbers`` (n,) counts data rows from 1; ``malformed`` are among and between them."""

    table: pa.RecordBatch
    numbers: NDArray[np.int64]
    malformed: tuple[Malformed, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of the file, malformed ones included."""
        return len(self.numbers) + len(self.malformed)

    def head(self, rows: int) -> Batch:
        """The first *rows* rows, malformed ones included, in the order of the file."""
        if self.rows <= rows:
            return self
        last = np.sort(np.concatenate([self.numbers, [row.row for row in self.malformed]]))[rows - 1]
        kept = int(np.searchsorted(self.numbers, last, side="right"))
        return Batch(
            self.table.slice(0, kept), self.numbers[:kept], tuple(row for row in self.malformed if row.row <= last)
        )


@dataclass(frozen=True)
class TableFile:
    """A file that was opened.

    ``columns``: their names in order, also those that occur twice. ``rows``: counted by lines, not parsed; a line break
    in a cell counts too. ``form``: what was recognised, for people. ``batches`` reads selected columns.
    """

    columns: list[str]
    rows: int
    batches: Callable[[Sequence[str]], Iterator[Batch]]
    form: str
