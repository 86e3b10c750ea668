"""Opens a file of transactions by its content: Parquet or CSV, compressed or not."""

from __future__ import annotations

from pathlib import Path

from centinela.datasets.containers import BROKEN, PARQUET, opener
from centinela.datasets.csv_file import open_csv
from centinela.datasets.options import FileOptions
from centinela.datasets.parquet_file import open_parquet
from centinela.datasets.table import TableFile, UnreadableFile


def open_table(path: Path, options: FileOptions | None = None) -> TableFile:
    """Open *path*: Parquet, or CSV that may be compressed (gzip, zip, bzip2, xz, zstd). Its name does not matter.

    Raises:
        UnreadableFile: It cannot be read; says why, and which option or step would help.
    """
    try:
        with path.open("rb") as stream:
            magic = stream.read(len(PARQUET))
        if magic == PARQUET:
            return open_parquet(path)
        return open_csv(path, *opener(path), options or FileOptions())
    except BROKEN as error:
        raise UnreadableFile(f"{path}: {error}") from error
