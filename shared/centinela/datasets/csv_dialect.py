"""How a CSV file is written, found from its first rows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from centinela.datasets.options import FileOptions
from centinela.datasets.records import RecordCutter
from centinela.datasets.table import UnreadableFile

_CANDIDATES = ("\t", ";", "|", ",")
_SNIFFED_ROWS = 50
_BOM = b"\xef\xbb\xbf"
_EXCEL_HINT = re.compile(rb"\s*\"?sep=([^\r\n])\"?[ \t]*(?:\r\n|\r|\n|$)", re.IGNORECASE)
_BLANK = re.compile(rb"[\s,;|\"]*[\r\n]+")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes", " ": "spaces"}


@dataclass(frozen=True)
class Dialect:
    """``header``: the column names. ``start``: where the first row begins, in bytes of UTF-8."""

    separator: str
    quote: str
    header: list[str]
    start: int

    def cutter(self) -> RecordCutter:
        """Cuts this file into records."""
        return RecordCutter(self.separator.encode(), self.quote.encode(), len(self.header))

    def __str__(self) -> str:
        return f"CSV with {_NAMES.get(self.separator, repr(self.separator))}"


def sniff(sample: bytes, options: FileOptions, source: str) -> Dialect:
    """The dialect of a file that begins with *sample*, in UTF-8.

    Before the header may stand a byte order mark, Excel's line ``sep=;`` and blank lines.

    Raises:
        UnreadableFile: There is no header.
    """
    start = len(_BOM) if sample.startswith(_BOM) else 0
    said = options.separator
    if hint := _EXCEL_HINT.match(sample, start):
        said = said or hint.group(1).decode("latin-1")
        start = hint.end()
    if (blank := _BLANK.match(sample, start)) and said != "\t":
        start = blank.end()
    body = sample[start:]
    if not body.strip():
        raise UnreadableFile(f"{source} is empty")
    separator = said or _separator(body)
    if not separator.isascii():
        raise UnreadableFile(f"{source} names the separator {separator!r}: pass --separator with an ASCII character")
    rows = _rows(body, separator, '"')
    quote = "'" if b'"' not in body and _single_quoted(rows[1:]) else '"'
    first = RecordCutter(separator.encode(), quote.encode(), 1).first(body)
    header = [name.strip() for name in _rows(first, separator, quote)[0]]
    return Dialect(separator, quote, _as_wide_as(header, rows[1:]), start + len(first))


def _separator(body: bytes) -> str:
    """That which gives the most rows as many fields as the header, then the most fields."""
    best, found = (0.0, 0), ","
    for candidate in _CANDIDATES:
        header, *rows = _rows(body, candidate, '"')
        share = sum(abs(len(row) - len(header)) <= 1 for row in rows) / len(rows) if rows else 1.0
        if len(header) > 1 and (round(share, 1), len(header)) > best:
            best, found = (round(share, 1), len(header)), candidate
    return found


def _rows(body: bytes, separator: str, quote: str) -> list[list[str]]:
    """The first rows, without the last one where more were not sampled, and without blank ones."""
    reader = csv.reader(io.StringIO(body.decode("utf-8", "replace"), newline=""), delimiter=separator, quotechar=quote)
    found: list[list[str]] = []
    try:
        for row in reader:
            if row:
                found.append(row)
            if len(found) > _SNIFFED_ROWS:
                break
    except csv.Error:
        pass  # a field beyond the limit of this reader: the rows before it are enough
    return found or [[body.decode("utf-8", "replace")]]


def _single_quoted(rows: Sequence[Sequence[str]]) -> bool:
    """Whether a column is in single quotes, as BankSim's are."""
    return any(
        all(len(cell) > 1 and cell[0] == cell[-1] == "'" for cell in column) for column in zip(*rows, strict=False)
    )


def _as_wide_as(header: list[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """*header* with one empty name more, or less, where a separator ends each row but not the header, or only it."""
    widths = {len(row) for row in rows}
    if widths == {len(header) + 1} and not any(row[-1].strip() for row in rows):
        return [*header, ""]
    if widths == {len(header) - 1} and not header[-1]:
        return header[:-1]
    return header
