"""Snapshots of the state on disk: a write is atomic, and the newest readable one counts."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO, TypeVar

import msgspec
import numpy as np
import structlog

from centinela.errors import CentinelaError
from centinela.files import remove_parts, write_atomically
from centinela_drift.decision.windows import Arrays

_log = structlog.get_logger(__name__)
KEPT = 3
_VALUES = "values"
S = TypeVar("S", bound=msgspec.Struct)


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
        remove_parts(folder)
        for part in folder.glob("*.tmp"):  # the temporary name of earlier releases
            part.unlink()

    def save(self, values: msgspec.Struct, arrays: Arrays) -> Path:
        """Write one snapshot; older ones past ``KEPT`` go. Raises OSError where the disk refuses."""
        numbers = self._numbers()
        path = self._path(numbers[-1] + 1 if numbers else 1)
        text = np.frombuffer(msgspec.json.encode(values), dtype=np.uint8)
        write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **{_VALUES: text}, **arrays))
        for number in numbers[: -(KEPT - 1)]:
            self._path(number).unlink(missing_ok=True)
        return path

    def load(self, kind: type[S]) -> tuple[S, Arrays] | None:
        """The newest snapshot that can be read, its values as *kind*; None where there is none.

        Raises:
            CentinelaError: A snapshot is whole, but its values are not of *kind*: another release wrote it.
        """
        for number in reversed(self._numbers()):
            path = self._path(number)
            try:
                with np.load(path, allow_pickle=False) as content:
                    arrays: Arrays = {name: content[name] for name in content.files}
                return msgspec.json.decode(arrays.pop(_VALUES).tobytes(), type=kind), arrays
            except msgspec.ValidationError as error:
                raise CentinelaError(f"{path} was written by another release: {error}") from error
            except Exception as error:  # numpy and zipfile raise a dozen kinds for damaged bytes
                _log.warning("snapshot.unreadable", path=path.name, error=str(error))
        return None

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()

    def _path(self, number: int) -> Path:
        return self._folder / f"state-{number:010d}.npz"

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem.removeprefix("state-")) for path in self._folder.glob("state-*.npz"))
