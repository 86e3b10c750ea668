"""Snapshots of the state on disk: written aside, synced, renamed; the newest readable one counts."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
import structlog
from numpy.typing import NDArray

from centinela.errors import CentinelaError
from centinela.files import sync_folder

log = structlog.get_logger()
KEPT = 3
_VALUES = "values"


class SnapshotStore:
    """The snapshots of one process in *folder* (made where missing), locked against a second process.

    Raises:
        CentinelaError: Another process holds the folder.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock: IO[str] = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CentinelaError(
                f"another drift process works on {folder}: stop it, or set another CENTINELA_DATA_DIR"
            ) from error
        for left in folder.glob("*.tmp"):
            left.unlink()

    def save(self, values: Mapping[str, object], arrays: Mapping[str, NDArray[np.generic]]) -> Path:
        """Write one snapshot; older ones past ``KEPT`` go. Raises OSError where the disk refuses."""
        numbers = self._numbers()
        path = self._path(numbers[-1] + 1 if numbers else 1)
        aside = path.with_suffix(".tmp")
        text = np.frombuffer(json.dumps(values).encode(), dtype=np.uint8)
        with aside.open("wb") as file:
            np.savez(file, allow_pickle=False, **{_VALUES: text}, **arrays)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_folder(self._folder)
        for number in numbers[: -(KEPT - 1)]:
            self._path(number).unlink(missing_ok=True)
        return path

    def load(self) -> tuple[dict[str, object], dict[str, NDArray[np.generic]]] | None:
        """The newest snapshot that can be read, or None."""
        for number in reversed(self._numbers()):
            path = self._path(number)
            try:
                with np.load(path, allow_pickle=False) as content:
                    arrays = {name: content[name] for name in content.files}
                return json.loads(arrays.pop(_VALUES).tobytes()), arrays
            except Exception as error:  # numpy and zipfile raise a dozen kinds for damaged bytes
                log.warning("snapshot.unreadable", path=path.name, error=str(error))
        return None

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()

    def _path(self, number: int) -> Path:
        return self._folder / f"state-{number:010d}.npz"

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem.removeprefix("state-")) for path in self._folder.glob("state-*.npz"))
