"""The archive's files: written so that a replay overwrites rather than repeats, read so that each event counts once.

``<data_dir>/archive/<stream>/day=YYYY-MM-DD/<topic>-<partition>-<first offset>-<last offset>.parquet``: the offsets are
those of the flush that wrote the file. ``offsets.json`` beside the streams says how far each partition is archived.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from centinela.errors import DependencyUnavailable
from centinela.files import sync_folder
from centinela.kafka.port import TopicPartition

log = structlog.get_logger()
PREDICTIONS = "predictions"
LABELS = "labels"
_NAME = re.compile(r"^(?P<topic>.+)-(?P<partition>\d+)-(?P<first>\d{15})-(?P<last>\d{15})\.parquet$")


class Extent(NamedTuple):
    """A file and the offsets of the flush that wrote it."""

    path: Path
    first: int
    last: int


class ArchiveStore:
    """Files under *root*. One process writes (see ``lock``); any number read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._leftovers: dict[tuple[str, TopicPartition], list[Extent]] = {}
        self._lock: IO[str] | None = None

    def lock(self) -> None:
        """Become the one writer until the process ends.

        Raises:
            DependencyUnavailable: Another process writes to this archive, or the disk refuses.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = (self.root / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in self.root.glob("*/day=*/*.tmp"):
                left.unlink()
        except BlockingIOError as error:
            raise DependencyUnavailable(
                f"another process writes to {self.root}; only one may", dependency="archive lock"
            ) from error
        except OSError as error:
            raise DependencyUnavailable(f"cannot write to {self.root}: {error.strerror}", dependency="disk") from error

    def begin(self, stream: str, partition: TopicPartition, committed: int | None) -> int | None:
        """Where to read *partition* from: the offset at which the archive ends; None for the beginning of the log.

        Files past that offset (a flush that was cut short) are replaced as their offsets are written again, from the
        first of a file that only reaches past it (the group was set back). Where the group
        knows no offset although files stand (offsets expired, the topic was made anew), those are kept under a name of
        their own.
        """
        extents = list(self._extents(stream, partition))
        if committed is None:
            if extents:
                log.warning(
                    "archive.offsets_lost",
                    topic=partition.topic,
                    partition=partition.partition,
                    files_kept=len(extents),
                )
                self._keep(extents)
            self.save_offsets({partition: 0})
            self._leftovers[stream, partition] = []
            return None
        archived = min(self.offsets().get(partition, 0), committed)
        leftovers = [extent for extent in extents if extent.last >= archived]
        self._leftovers[stream, partition] = leftovers
        return min([archived, *(extent.first for extent in leftovers)])

    def write(
        self, stream: str, partition: TopicPartition, first: int, last: int, tables: Mapping[date, Sequence[pa.Table]]
    ) -> int:
        """Make the events of offsets *first* to *last* stand on the disk: aside, fsync, rename. Returns bytes written.

        Raises:
            DependencyUnavailable: The disk refuses; nothing may be committed.
        """
        try:
            pairs = [
                (self._aside(target, parts), target)
                for target, parts in (
                    (self._path(stream, day, partition, first, last), parts) for day, parts in tables.items()
                )
            ]
            size = sum(aside.stat().st_size for aside, _ in pairs)
            for aside, target in pairs:
                aside.replace(target)
            written = {target for _, target in pairs}
            leftovers = self._leftovers.get((stream, partition), [])
            stale = [extent for extent in leftovers if first <= extent.first <= last]
            for extent in stale:
                if extent.path not in written:
                    extent.path.unlink(missing_ok=True)
            self._leftovers[stream, partition] = [extent for extent in leftovers if extent not in stale]
            for folder in {path.parent for path in (*written, *(extent.path for extent in stale))}:
                sync_folder(folder)
        except OSError as error:
            raise DependencyUnavailable(f"cannot write to {self.root}: {error.strerror}", dependency="disk") from error
        return size

    def save_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Add to ``offsets.json``: up to which offset (next to read) each partition stands in the archive."""
        aside = self.root / "offsets.json.tmp"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            known = self.offsets() | dict(offsets)
            text = json.dumps(
                {f"{topic}-{number}": offset for (topic, number), offset in sorted(known.items())}, indent=1
            )
            with aside.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.root / "offsets.json")
            sync_folder(self.root)
        except OSError as error:
            raise DependencyUnavailable(f"cannot write to {self.root}: {error.strerror}", dependency="disk") from error

    def offsets(self) -> dict[TopicPartition, int]:
        """Next offset of each partition, as last saved."""
        try:
            saved = json.loads((self.root / "offsets.json").read_text())
        except FileNotFoundError:
            return {}
        return {TopicPartition(*_split_name(name)): offset for name, offset in saved.items()}

    def files(self, stream: str, first: date | None = None, last: date | None = None) -> list[Path]:
        """The files of *stream* whose event day lies in [*first*, *last*], in order."""
        folders = sorted((self.root / stream).glob("day=*"))
        return [
            path
            for folder in folders
            if _within(date.fromisoformat(folder.name[4:]), first, last)
            for path in sorted(folder.glob("*.parquet"))
        ]

    def _path(self, stream: str, day: date, partition: TopicPartition, first: int, last: int) -> Path:
        return (
            self.root
            / stream
            / f"day={day.isoformat()}"
            / f"{partition.topic}-{partition.partition}-{first:015d}-{last:015d}.parquet"
        )

    @staticmethod
    def _aside(target: Path, parts: Sequence[pa.Table]) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_suffix(".tmp")
        with aside.open("wb") as file:
            pq.write_table(pa.concat_tables(parts, promote_options="default"), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        return aside

    def _extents(self, stream: str, partition: TopicPartition) -> Iterable[Extent]:
        for path in self.files(stream):
            match = _NAME.match(path.name)
            if match and (match["topic"], int(match["partition"])) == partition:
                yield Extent(path, int(match["first"]), int(match["last"]))

    def _keep(self, extents: Iterable[Extent]) -> None:
        for path, _, _ in extents:
            number = 1
            while (kept := path.with_name(f"{path.stem}.kept{number}.parquet")).exists():
                number += 1
            path.replace(kept)


def _within(day: date, first: date | None, last: date | None) -> bool:
    return (first is None or day >= first) and (last is None or day <= last)


def _split_name(name: str) -> tuple[str, int]:
    topic, _, number = name.rpartition("-")
    return topic, int(number)
