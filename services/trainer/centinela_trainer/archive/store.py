"""The archive's files: written so that a replay overwrites rather than repeats, read so that each event counts once.

``<data_dir>/archive/<stream>/day=YYYY-MM-DD/<topic>-<partition>-<first offset>-<last offset>.parquet``: the offsets are
those of the flush that wrote the file. ``offsets.json`` next to the streams says how far each partition is archived,
and ``topics.json`` of which incarnation of its topic that is.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from centinela.errors import DependencyUnavailable
from centinela.files import PART_SUFFIX, remove_parts, sync_folder, write_atomically, write_synced
from centinela.kafka.port import TopicPartition

_log = structlog.get_logger(__name__)
PREDICTIONS = "predictions"
LABELS = "labels"
_TOPICS = "topics.json"
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
            self._remove_parts()
        except BlockingIOError as error:
            raise DependencyUnavailable(
                f"another process writes to {self.root}; only one may", dependency="archive lock"
            ) from error
        except OSError as error:
            raise DependencyUnavailable(f"cannot write to {self.root}: {error.strerror}", dependency="disk") from error

    def begin(self, stream: str, partition: TopicPartition, committed: int | None) -> int | None:
        """Where to read *partition* from: the offset at which the archive ends; None for the beginning of the log.

        Files past that offset (a flush that was cut short) are replaced as their offsets are written again, from the
        first of a file that only reaches past it (the group was set back). Where there is no offset although there are
        files (the topic was created again), those are kept under another name.
        """
        extents = list(self._extents(stream, partition))
        if committed is None:
            if extents:
                _log.warning(
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
        """Put the events of offsets *first* to *last* on the disk, all files flushed before any is renamed.

        Returns:
            Bytes written.

        Raises:
            DependencyUnavailable: The disk refuses; nothing may be committed.
        """
        try:
            targets = {self._path(stream, day, partition, first, last): pieces for day, pieces in tables.items()}
            parts = {target: self._write_part(target, pieces) for target, pieces in targets.items()}
            size = sum(part.stat().st_size for part in parts.values())
            for target, part in parts.items():
                part.replace(target)
            written = set(parts)
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
        """Add to ``offsets.json``: the offset up to which each partition is archived (the next to read)."""
        self._write_offsets(self.offsets() | dict(offsets))

    def _write_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._write_json(
            "offsets.json", {f"{topic}-{number}": offset for (topic, number), offset in sorted(offsets.items())}
        )

    def _write_json(self, name: str, values: Mapping[str, int | str]) -> None:
        text = json.dumps(values, indent=1)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            write_atomically(self.root / name, lambda file: file.write(text.encode()))
        except OSError as error:
            raise DependencyUnavailable(f"cannot write to {self.root}: {error.strerror}", dependency="disk") from error

    def _topics(self) -> dict[str, str]:
        try:
            noted: dict[str, str] = json.loads((self.root / _TOPICS).read_text())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise DependencyUnavailable(f"cannot read {self.root}: {error.strerror}", dependency="disk") from error
        return noted

    def offsets(self) -> dict[TopicPartition, int]:
        """Next offset of each partition, as last saved."""
        try:
            saved = json.loads((self.root / "offsets.json").read_text())
        except FileNotFoundError:
            return {}
        return {TopicPartition(*_split_name(name)): offset for name, offset in saved.items()}

    def is_of(self, topic: str, topic_id: str) -> bool:
        """Whether the offsets of *topic* belong to its incarnation *topic_id*."""
        return self._topics().get(topic) == topic_id

    def knows_topic(self, topic: str) -> bool:
        """Whether the incarnation of *topic* was noted."""
        return topic in self._topics()

    def note_topic(self, topic: str, topic_id: str, *, same: bool) -> None:
        """Note that the offsets of *topic* belong to *topic_id*. Unless it is the *same* log, those saved are dropped.

        Raises:
            DependencyUnavailable: The disk refuses.
        """
        if not same:
            self._write_offsets({p: offset for p, offset in self.offsets().items() if p.topic != topic})
        self._write_json(_TOPICS, self._topics() | {topic: topic_id})

    def files(self, stream: str, first: date | None = None, last: date | None = None) -> list[Path]:
        """The files of *stream* whose event day is in [*first*, *last*], in order."""
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
    def _write_part(target: Path, tables: Sequence[pa.Table]) -> Path:
        """Write *tables* next to *target*, flushed to the disk; the temporary file."""
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(PART_SUFFIX)
        table = pa.concat_tables(tables, promote_options="default")
        write_synced(part, lambda file: pq.write_table(table, file, compression="zstd"))
        return part

    def _remove_parts(self) -> None:
        """Remove what killed writers left; earlier releases named it ``*.tmp``."""
        remove_parts(self.root)
        for folder in self.root.glob("*/day=*"):
            remove_parts(folder)
        for pattern in ("*.tmp", "*/day=*/*.tmp"):
            for part in self.root.glob(pattern):
                part.unlink()

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
