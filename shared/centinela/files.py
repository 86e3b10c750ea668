"""Files that are there whole or not at all, whatever is killed and whenever."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO
from uuid import uuid4

PART_SUFFIX = ".part"
"""What a writer that was killed leaves behind ends like this."""

Write = Callable[[IO[bytes]], object]


def write_atomically(path: Path, write: Write, *, mode: int | None = None) -> None:
    """Put what *write* writes at *path*: to a temporary file next to it, flushed to the disk, then renamed.

    Several writers may do so at once, also threads and containers with equal process ids; the last one wins.

    Args:
        path: In an existing folder. What is there already is replaced.
        write: Called with the open temporary file.
        mode: Permission bits of the file.

    Raises:
        OSError: The disk refuses; *path* is as it was before.
    """
    part = path.with_name(f"{path.name}.{uuid4().hex[:8]}.{os.getpid()}{PART_SUFFIX}")
    try:
        write_synced(part, write)
        if mode is not None:
            part.chmod(mode)
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_synced(path: Path, write: Write) -> None:
    """Write *path* and flush its content, not its name, to the disk. Raises OSError."""
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def remove_parts(folder: Path) -> None:
    """Remove what killed writers left in *folder*; only its one writer may call this. Raises OSError."""
    for part in folder.glob(f"*{PART_SUFFIX}"):
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush the names in *folder* to the disk, as ``fsync`` of a file does its content. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
