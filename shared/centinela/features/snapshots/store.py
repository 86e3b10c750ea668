"""Where snapshots of feature state are kept: one folder per state, a file per position, the newest three."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from centinela.errors import DependencyUnavailable
from centinela.features.snapshots.format import name_of, position_of
from centinela.features.snapshots.shared_store import SharedFolder
from centinela.files import remove_parts, write_atomically


class SnapshotStore:
    """Snapshots by position (an offset), each written atomically, then uploaded in the background.

    Every call raises ``DependencyUnavailable`` where the disk refuses. Shared storage that does not answer is passed
    over.

    Args:
        folder: Made with the first save.
        keep: Newest snapshots kept.
        shared: Copies that other machines can read.
    """

    def __init__(self, folder: Path, keep: int = 3, shared: SharedFolder | None = None) -> None:
        self._folder, self._keep, self._shared = folder, keep, shared

    def save(self, position: int, data: bytes) -> None:
        """Save *data* under *position*; remove older ones past the newest few, and what killed writers left."""
        final = self._folder / name_of(position)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_parts(self._folder)
            write_atomically(final, lambda file: file.write(data))
            for position_, path in sorted(self._here().items(), reverse=True)[self._keep :]:
                if position_ != position:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise DependencyUnavailable(
                f"cannot write a snapshot to {self._folder}: {error}", dependency="disk"
            ) from error
        if self._shared is not None:
            self._shared.offer(position, data, self._keep)

    def load(self, at_most: int) -> Iterator[tuple[int, bytes]]:
        """(position, data) of the snapshots at or below *at_most*, newest first; at one position that on disk."""
        here = self._here()
        there = self._shared.positions() if self._shared is not None else frozenset()
        for position in sorted((p for p in here.keys() | there if p <= at_most), reverse=True):
            if position in here:
                try:
                    yield position, here[position].read_bytes()
                except FileNotFoundError:
                    pass
                except OSError as error:
                    raise DependencyUnavailable(f"cannot read {here[position]}: {error}", dependency="disk") from error
            if position in there and self._shared is not None and (data := self._shared.read(position)) is not None:
                yield position, data

    def clear(self) -> None:
        """Delete everything on disk: it belongs to another log."""
        for path in self._here().values():
            path.unlink(missing_ok=True)

    def _here(self) -> dict[int, Path]:
        try:
            found = list(self._folder.iterdir())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise DependencyUnavailable(f"cannot read {self._folder}: {error}", dependency="disk") from error
        return {position: path for path in found if (position := position_of(path.name)) is not None}
