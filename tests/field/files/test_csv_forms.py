"""CSV files as programs write them: each row a transaction or a dead letter, or a message that names the option."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest

from centinela.datasets.mapping import MappingError
from centinela.datasets.options import FileOptions
from centinela.datasets.table import UnreadableFile
from tests.field.files.support import PLAIN, read

FIRST = "f-000000001 2026-01-05T10:00:00Z ü 12.5"
SECOND = "f-000000002 2026-01-05T11:00:00Z v 1234"
BOTH = [FIRST, SECOND]
COMMAS = "at,amount,user\n2026-01-05 10:00,12.5,ü\n2026-01-05 11:00,1234,v\n"
EXCEL = "at;amount;user\r\n05.01.2026 10:00;12,50;ü\r\n05.01.2026 11:00;1.234,00;v\r\n"


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)  # type: ignore[no-any-return]


class Good(NamedTuple):
    """A file of which both rows are read."""

    name: str
    content: str | bytes
    options: FileOptions = FileOptions()


GOOD = (
    Good("commas", COMMAS),
    Good("German Excel: semicolons, decimal commas, points between thousands, Windows line ends", EXCEL),
    Good("Excel's CSV UTF-8 with a byte order mark", b"\xef\xbb\xbf" + EXCEL.encode()),
    Good("Excel's line that names the separator", "sep=;\r\n" + EXCEL),
    Good("the same line in front of tabs", "sep=\t\r\n" + EXCEL.replace(";", "\t")),
    Good("Excel's Unicode text: UTF-16 and tabs", EXCEL.replace(";", "\t").encode("utf-16")),
    Good("UTF-16 without a byte order mark", EXCEL.encode("utf-16-le")),
    Good("UTF-16, big end first, without a byte order mark", EXCEL.encode("utf-16-be")),
    Good("UTF-32", EXCEL.encode("utf-32")),
    Good("Windows' encoding, named", EXCEL.encode("cp1252"), FileOptions.of(None, None, "windows-1252")),
    Good("latin-1, named", COMMAS.encode("latin-1"), FileOptions.of(None, None, "latin-1")),
    Good("tabs", COMMAS.replace(",", "\t")),
    Good("pipes", COMMAS.replace(",", "|")),
    Good("carets, named", COMMAS.replace(",", "^"), FileOptions.of("^", None, None)),
    Good("tabs, named", COMMAS.replace(",", "\t"), FileOptions.of("tab", None, None)),
    Good("decimal commas, named", EXCEL, FileOptions.of(";", ",", None)),
    Good("an empty first line", "\n" + COMMAS),
    Good("a first row of Excel without content", ";;\r\n" + EXCEL),
    Good("empty lines between the rows", COMMAS.replace("\n", "\n\n")),
    Good("line ends of old Macs", COMMAS.replace("\n", "\r")),
    Good("no line end at the end", COMMAS.rstrip("\n")),
    Good("spaces around names and values", COMMAS.replace(",", " , ")),
    Good("a separator at the end of each row, not of the header", COMMAS.replace("5,ü", "5,ü,").replace("4,v", "4,v,")),
    Good("a separator at the end of each line", COMMAS.replace("\n", ",\n")),
    Good("a separator at the end of the header only", COMMAS.replace("user\n", "user,\n")),
    Good("a nameless first column, as pandas writes its index", "," + COMMAS.replace("\n2026", "\n7,2026")),
    Good("everything in quotes", "".join(f'"{line}"\n'.replace(",", '","') for line in COMMAS.splitlines())),
    Good(
        "everything in single quotes",
        "at,amount,user\n" + "".join(f"'{line}'\n".replace(",", "','") for line in COMMAS.splitlines()[1:]),
    ),
    Good(
        "a column that is not mapped and has commas in quotes",
        COMMAS.replace("at,", "note,at,").replace("\n2026", '\n"a, ""b""",2026'),
    ),
    Good("gzip", gzip.compress(COMMAS.encode())),
    Good("gzip in two members", gzip.compress(COMMAS[:30].encode()) + gzip.compress(COMMAS.encode()[30:])),
    Good("zip", zipped({"t.csv": COMMAS.encode()})),
    Good("zip as a Mac writes it", zipped({"t.csv": COMMAS.encode(), "__MACOSX/._t.csv": b"x"})),
    Good("bzip2", bz2.compress(COMMAS.encode())),
    Good("xz", lzma.compress(COMMAS.encode())),
    Good("zstd", zstd(COMMAS.encode())),
    Good("gzip of UTF-16", gzip.compress(EXCEL.encode("utf-16"))),
)


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_both_rows_are_read(case: Good, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(case.content if isinstance(case.content, bytes) else case.content.encode())
    found = read(path, PLAIN, case.options)
    assert (found.rows, found.rejects) == (BOTH, [])


class Odd(NamedTuple):
    """A file of which row 2 of three is rejected, and why; the others are as in ``COMMAS``."""

    name: str
    row: str | bytes
    detail: str


ODD = (
    Odd("too few fields", "2026-01-05 10:00,1", "2 fields; the header has 3"),
    Odd("too many fields", "2026-01-05 10:00,1,u,x", "4 fields; the header has 3"),
    Odd("decimal commas without quotes", "2026-01-05 10:00,1,50,u", "4 fields"),
    Odd("a quote that is never closed", '2026-01-05 10:00,1,"u', "a quote is not closed"),
    Odd("text after a closing quote", '2026-01-05 10:00,1,"u"x', "text follows a closing quote"),
    Odd("the header once more, as in joined files", "at,amount,user", "repeats the header"),
    Odd("another encoding", b"2026-01-05 10:00,1," + b"\xfc", "--encoding"),
    Odd("a decimal comma among points", '2026-01-05 10:00,"1,5",u', "pass --decimal ,"),
    Odd("only separators", ",,", "occurred_at: missing"),
    Odd("a null byte in a number", "2026-01-05 10:00,1\x002,u", "amount: not a number"),
    Odd("a number too large for any amount", "2026-01-05 10:00,1e999,u", "not finite"),
)


@pytest.mark.parametrize("case", ODD, ids=lambda case: case.name)
def test_one_bad_row_is_one_dead_letter_with_its_number(case: Odd, tmp_path: Path) -> None:
    header, first, last = COMMAS.encode().splitlines(keepends=True)
    row = case.row if isinstance(case.row, bytes) else case.row.encode()
    path = tmp_path / "t.csv"
    path.write_bytes(header + first + row + b"\n" + last)
    found = read(path, PLAIN)
    assert found.rows == [FIRST, SECOND.replace("f-000000002", "f-000000003")]
    [(number, detail)] = found.rejects
    assert number == 2
    assert case.detail in detail


class Refused(NamedTuple):
    """A file that is refused before anything is sent, and what the message must say."""

    name: str
    content: str | bytes
    message: str


REFUSED = (
    Refused("Windows' encoding", EXCEL.encode("cp1252"), r"not UTF-8 \(line 2\): pass --encoding, such as cp1252"),
    Refused("nothing", "", "is empty"),
    Refused("only line ends", "\n\r\n", "is empty"),
    Refused("one column", COMMAS.replace(",", "^"), "pass --separator"),
    Refused("no header", COMMAS.split("\n", 1)[1], "no column at, amount, user"),
    Refused("two columns of a name", COMMAS.replace("user", "amount"), "no column user"),
    Refused(
        "numbers for times",
        "at,amount,user\n1767607200,1,u\n1767607201,2,u\n",
        r"column at \(1767607200\): a number: set time\.unit",
    ),
    Refused("days or months first", "at,amount,user\n05/01/2026 10:00,1,u\n", r"day or month first\? Set time\.format"),
    Refused(
        "an Excel workbook",
        zipped({"xl/workbook.xml": b"<x/>", "xl/styles.xml": b""}),
        "an Excel workbook: save it as CSV",
    ),
    Refused(
        "an old Excel workbook", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(900), "an Excel workbook: save it as CSV"
    ),
    Refused(
        "a zip archive of several files",
        zipped({"a.csv": b"x", "b.csv": b"y"}),
        r"2 files \(a\.csv, b\.csv\): unpack it",
    ),
    Refused("Parquet inside gzip", gzip.compress(b"PAR1" + bytes(40)), "a Parquet file inside gzip: unpack it"),
    Refused("JSON lines", '{"at": 1}\n', "is JSON: convert it to CSV or Parquet"),
    Refused("a JSON array", '[{"at": 1}]', "is JSON"),
    Refused("a web page in place of the download", "<!DOCTYPE html><html>", "a web page"),
    Refused("a pointer of Git LFS", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    Refused("an archive of pg_dump", b"PGDMP\x01\x0e", r"\\copy"),
    Refused("a file cut off inside gzip", gzip.compress(COMMAS.encode())[:-12], r"t\.csv"),
)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_what_cannot_be_read_is_refused_with_what_to_do(case: Refused, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(case.content if isinstance(case.content, bytes) else case.content.encode())
    with pytest.raises((UnreadableFile, MappingError), match=case.message):
        read(path, PLAIN)


def test_two_columns_of_one_name_are_refused_with_their_places(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("at,amount,user,amount\n2026-01-05 10:00,1,u,2\n")
    with pytest.raises(MappingError, match=r"2 columns named 'amount' \(columns 2, 4\)"):
        read(tmp_path / "t.csv", PLAIN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("||", None, None), "--separator '||'"),
        (("§", None, None), "--separator '§'"),
        ((None, "'", None), "--decimal"),
        ((None, None, "klingon"), "--encoding 'klingon' is unknown"),
        ((None, None, "base64"), "--encoding 'base64' is unknown"),
    ],
)
def test_an_option_that_means_nothing_is_refused_by_name(
    arguments: tuple[str | None, str | None, str | None], message: str
) -> None:
    with pytest.raises(UnreadableFile) as refused:
        FileOptions.of(*arguments)
    assert message in str(refused.value)
