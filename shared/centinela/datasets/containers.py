"""What a file is by its content, not its name: compressed text, Parquet, or something else that a person should
know."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from centinela.datasets.table import UnreadableFile

BROKEN = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    NotImplementedError,
    UnicodeError,
    pa.ArrowException,
)
"""What reading a damaged file raises."""

Opener = Callable[[], IO[bytes]]
PARQUET = b"PAR1"
_EXCEL = "an Excel workbook: save it as CSV (File, Save As, CSV UTF-8)"
_UNPACK = "unpack it, and pass one of its files"
_CONVERT = "convert it to CSV or Parquet"
_PAGE = "a web page, perhaps a login in place of the download: fetch the file again"
_FOREIGN = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _EXCEL),
    (b"ORC", f"an ORC file: {_CONVERT}"),
    (b"Obj\x01", f"an Avro file: {_CONVERT}"),
    (b"ARROW1", f"an Arrow file: {_CONVERT}"),
    (b"\x89HDF", f"an HDF5 file: {_CONVERT}"),
    (b"SQLite format 3", f"an SQLite database: {_CONVERT}"),
    (b"PGDMP", r"an archive of pg_dump: export the table with \copy ... TO 'file.csv' WITH (FORMAT csv, HEADER)"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive: {_UNPACK}"),
    (b"Rar!", f"a RAR archive: {_UNPACK}"),
    (b"%PDF", f"a PDF: {_CONVERT}"),
    (b"version https://git-lfs", "a pointer of Git LFS: fetch the file with git lfs pull"),
)
_TEXTS = (
    (b"<!doctype", _PAGE),
    (b"<html", _PAGE),
    (b"<?xml", f"XML: {_CONVERT}"),
    (b"{", f"JSON: {_CONVERT}"),
    (b"[{", f"JSON: {_CONVERT}"),
    (b"[\n", f"JSON: {_CONVERT}"),
)
_TAR = slice(257, 262)


def opener(path: Path) -> tuple[Opener, str]:
    """A way to read *path* without its compression, and what that is (nothing, or ``gzip``).

    Raises:
        UnreadableFile: It is an archive without exactly one file of data.
        OSError: It cannot be read.
    """
    with path.open("rb") as stream:
        magic = stream.read(8)
    if magic.startswith(b"\x1f\x8b"):
        return lambda: cast(IO[bytes], gzip.open(path, "rb")), "gzip"
    if magic.startswith(b"BZh"):
        return lambda: bz2.open(path, "rb"), "bzip2"
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lambda: lzma.open(path, "rb"), "xz"
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return lambda: cast(IO[bytes], pa.input_stream(str(path), compression="zstd")), "zstd"
    if magic.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_opener(path), "zip"
    return lambda: path.open("rb"), ""


def require_text(head: bytes, packed: str, source: str) -> None:
    """Check that *head*, the first bytes of a file, can be those of a CSV file.

    Raises:
        UnreadableFile: They are those of another format, which the message names.
    """
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    found = next((what for magic, what in _FOREIGN if head.startswith(magic)), None)
    found = found or next((what for magic, what in _TEXTS if start.lower().startswith(magic)), None)
    if head[_TAR] == b"ustar":
        found = f"a tar archive: {_UNPACK}"
    if head.startswith(PARQUET):
        found = f"a Parquet file inside {packed}: {_UNPACK}"
    if found:
        raise UnreadableFile(f"{source} is {found}")


def _zip_opener(path: Path) -> Opener:
    with zipfile.ZipFile(path) as archive:
        names = [
            info.filename
            for info in archive.infolist()
            if not info.is_dir() and not any(part.startswith((".", "__MACOSX")) for part in Path(info.filename).parts)
        ]
        if any(name.startswith(("xl/", "content.xml")) for name in names):
            raise UnreadableFile(f"{path} is {_EXCEL}")
        if len(names) != 1:
            shown = ", ".join(names[:12]) or "none"
            raise UnreadableFile(f"{path} is a zip archive of {len(names)} files ({shown}): {_UNPACK}")
        if archive.getinfo(names[0]).flag_bits & 1:
            raise UnreadableFile(f"{path} is a zip archive with a password: {_UNPACK}")
    return lambda: zipfile.ZipFile(path).open(names[0])
