"""A training set as Parquet partitions, and the digest by which DVC knows a folder of them: no state, no settings.

One file for each event day: ``day=YYYY-MM-DD/rows.parquet``. The same rows give the same bytes wherever the same
release of pyarrow writes them, so days that did not change between two trainings are the same file.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from centinela.errors import CentinelaError
from centinela.times import DAY_US, date_of_day
from centinela_trainer.archive.arrow_tables import INSTANT
from centinela_trainer.training.dataset import Dataset

FILE = "rows.parquet"
PREFIX = "md5:"
OWN_COLUMNS = ("transaction_id", "user_id", "occurred_at", "is_fraud")


class NoSnapshot(CentinelaError):
    """There is no such snapshot, or it cannot be read."""


class Partition(NamedTuple):
    """A file of the set: its path within it (with ``/``), and its bytes."""

    path: str
    data: bytes


class Entry(NamedTuple):
    """A file of the set: its path within it (with ``/``), and the md5 of its bytes, 32 hex digits."""

    path: str
    md5: str


def partitions(dataset: Dataset) -> Iterator[Partition]:
    """The files of *dataset*, day by day; rows in its order, none for an empty set. Missing features are null."""
    days = dataset.times_us // DAY_US
    found, starts = np.unique(days, return_index=True)
    for day, start, end in zip(found, starts, np.append(starts, len(days))[1:], strict=True):
        rows = slice(int(start), int(end))
        table = pa.table(
            {
                "transaction_id": pa.array(dataset.transaction_ids[rows], pa.string()),
                "user_id": pa.array(dataset.cards[rows], pa.string()),
                "occurred_at": pa.array(dataset.times_us[rows]).cast(INSTANT),
                "is_fraud": pa.array(dataset.is_fraud[rows]),
                **{
                    name: pa.array(dataset.matrix[rows, at] + 0.0, from_pandas=True)
                    for at, name in enumerate(dataset.names)
                },
            }
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        yield Partition(f"day={date_of_day(int(day))}/{FILE}", buffer.getvalue())


def read_folder(folder: Path) -> Dataset:
    """The data set whose partitions are in *folder*. Its ``mature_until_us`` is the time of its newest transaction.

    Raises:
        NoSnapshot: There is none, or a file has another format.
    """
    files = sorted(folder.glob(f"day=*/{FILE}"))
    if not files:
        raise NoSnapshot(f"{folder} holds no training set")
    try:
        table = pa.concat_tables([pq.read_table(path, partitioning=None) for path in files])
        names = tuple(name for name in table.column_names if name not in OWN_COLUMNS)
        times = table["occurred_at"].cast(pa.int64()).to_numpy()
        return Dataset(
            names=names,
            matrix=np.column_stack([table[name].to_numpy() for name in names]) + 0.0,
            is_fraud=table["is_fraud"].to_numpy(),
            transaction_ids=np.array(table["transaction_id"].to_pylist(), dtype=object),
            cards=np.array(table["user_id"].to_pylist(), dtype=object),
            times_us=times,
            mature_until_us=int(times[-1]),
        )
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise NoSnapshot(f"{folder} cannot be read: {error}") from error


def write_folder(dataset: Dataset, folder: Path) -> str:
    """Write *dataset*'s partitions into the new folder *folder*; its digest."""
    entries = []
    for path, data in partitions(dataset):
        target = folder / path
        target.parent.mkdir(parents=True)
        target.write_bytes(data)
        entries.append(Entry(path, md5(data)))
    return digest(entries)


def folder_digest(folder: Path) -> str:
    """The digest of all files under *folder*, as they are."""
    return digest(
        Entry(path.relative_to(folder).as_posix(), md5(path.read_bytes()))
        for path in folder.rglob("*")
        if path.is_file()
    )


def listing(entries: Iterable[Entry]) -> bytes:
    """What DVC keeps for a folder: its files by path, as JSON."""
    files = [{"md5": entry.md5, "relpath": entry.path} for entry in sorted(entries)]
    return json.dumps(files, sort_keys=True).encode()


def parse_listing(data: bytes) -> list[Entry]:
    """The inverse of ``listing``."""
    return [Entry(file["relpath"], file["md5"]) for file in json.loads(data)]


def digest(entries: Iterable[Entry]) -> str:
    """``md5:`` and 32 hex digits: with ``.dir`` after it, the md5 that ``dvc add`` gives the folder."""
    return PREFIX + md5(listing(entries))


def dataset_digest(dataset: Dataset) -> str:
    """The digest under which *dataset* is kept."""
    return digest(Entry(path, md5(data)) for path, data in partitions(dataset))


def md5(data: bytes) -> str:
    """Hex digest of *data*."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
