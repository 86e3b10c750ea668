"""Where snapshots of feature state are kept: one folder per state, a file per position, the newest three."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from centinela.errors import DependencyUnavailable

_NAME = re.compile(r"^(\d{19})\.snapshot$")


class SnapshotStore:
    """Snapshots by position (an offset), written aside, flushed to the disk and then renamed.

    Every call raises ``DependencyUnavailable`` where the disk refuses.

    Args:
        folder: Made with the first save.
        keep: Newest snapshots kept.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        self._folder, self._keep = folder, keep

    def save(self, position: int, data: bytes) -> None:
        """Keep *data* under *position*; older ones past the newest few go."""
        final = self._folder / f"{position:019d}.snapshot"
        aside = final.with_suffix(f".{os.getpid()}.part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(final)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            for _, path in self._newest_first()[self._keep:]:
                path.unlink(missing_ok=True)
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise DependencyUnavailable(f"cannot write a snapshot to {self._folder}: {error}", dependency="disk") from error

    def load(self, at_most: int) -> Iterator[tuple[int, bytes]]:
        """(position, data) of the snapshots at or below *at_most*, the newest first."""
        for position, path in self._newest_first():
            if position <= at_most:
                try:
                    data = path.read_bytes()
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise DependencyUnavailable(f"cannot read {path}: {error}", dependency="disk") from error
                yield position, data

    def clear(self) -> None:
        """Forget all: they belong to another log."""
        for _, path in self._newest_first():
            path.unlink(missing_ok=True)

    def _newest_first(self) -> list[tuple[int, Path]]:
        try:
            found = list(self._folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DependencyUnavailable(f"cannot read {self._folder}: {error}", dependency="disk") from error
        return sorted(((int(m[1]), path) for path in found if (m := _NAME.match(path.name))), reverse=True)
