"""Training sets, kept permanently: each retrain's, under the digest of its content.

::

    <md5>/day=YYYY-MM-DD/rows.parquet    a snapshot, for DuckDB, pandas, anybody
    files/md5/<2 digits>/<30 digits>     its files, linked from there: each content once, however many snapshots have it
    files/md5/<2 digits>/<30>.dir        its list of files, as DVC keeps it; written after all of them

``files/`` is laid out as DVC lays out a cache or a remote: ``dvc remote add -d snapshots <this folder>`` and a ``.dvc``
file with the digest are all that ``dvc pull`` needs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from centinela.errors import DependencyUnavailable
from centinela.files import sync_folder, write_atomically
from centinela_trainer.snapshots.format import (
    PREFIX,
    Entry,
    NoSnapshot,
    digest,
    listing,
    md5,
    parse_listing,
    partitions,
    read_folder,
)
from centinela_trainer.training.dataset import Dataset

OBJECTS = "files/md5"
DIRECTORY = ".dir"
_READ_ONLY = 0o440


@dataclass(frozen=True)
class Snapshot:
    """A snapshot on this disk. ``digest``: ``md5:`` and 32 hex digits; ``path``: its folder, absolute."""

    digest: str
    path: Path


class SnapshotStore:
    """Snapshots under *root*. Any number of processes may read and write."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, dataset: Dataset) -> Snapshot:
        """Keep *dataset*, n > 0 rows; where its content is kept already, nothing is written. Nobody ever sees half of
        it.

        Raises:
            DependencyUnavailable: The disk refuses.
        """
        with self._disk():
            entries = []
            for path, data in partitions(dataset):
                entries.append(Entry(path, md5(data)))
                self._put(entries[-1].md5, data)
            name = digest(entries)
            self._put(name.removeprefix(PREFIX) + DIRECTORY, listing(entries))
            return Snapshot(name, self._expose(name, entries).resolve())

    def find(self, name: str) -> Snapshot | None:
        """The snapshot with the digest *name*; None where it is not here."""
        folder = self._folder(name)
        return Snapshot(name, folder.resolve()) if folder.is_dir() else None

    def read(self, name: str) -> Dataset:
        """The training set with the digest *name*.

        Raises:
            NoSnapshot: It is not here.
        """
        found = self.find(name)
        if found is None:
            raise NoSnapshot(f"there is no snapshot {name} under {self.root}")
        return read_folder(found.path)

    def digests(self) -> list[str]:
        """Digests of the snapshots that are here."""
        return sorted(
            PREFIX + folder.name for folder in self.root.glob("[0-9a-f]*") if folder.is_dir() and len(folder.name) == 32
        )

    def entries(self, name: str) -> list[Entry]:
        """The files of the snapshot *name*.

        Raises:
            NoSnapshot: It is not here.
        """
        try:
            return parse_listing(self.object_path(name.removeprefix(PREFIX) + DIRECTORY).read_bytes())
        except FileNotFoundError as error:
            raise NoSnapshot(f"there is no snapshot {name} under {self.root}") from error

    def object_path(self, name: str) -> Path:
        """Where the content *name* (an md5, for a list of files followed by ``.dir``) is kept."""
        return self.root / object_key(name)

    def _folder(self, name: str) -> Path:
        return self.root / name.removeprefix(PREFIX)

    def _put(self, name: str, data: bytes) -> None:
        target = self.object_path(name)
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, lambda file: file.write(data), mode=_READ_ONLY)

    def _expose(self, name: str, entries: list[Entry]) -> Path:
        folder = self._folder(name)
        if folder.exists():
            return folder
        part = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
        try:
            for entry in entries:
                target = part / entry.path
                target.parent.mkdir(parents=True)
                _link(self.object_path(entry.md5), target)
                sync_folder(target.parent)
            part.rename(folder)
            sync_folder(self.root)
        except OSError:
            if not folder.exists():
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return folder

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DependencyUnavailable(f"cannot write to {self.root}: {error.strerror}", dependency="disk") from error


def object_key(name: str) -> str:
    """Where DVC's caches and remotes have the content *name*, below their root."""
    return f"{OBJECTS}/{name[:2]}/{name[2:]}"


def _link(source: Path, target: Path) -> None:
    """A second name for the file, or a copy where the disk does not support links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
