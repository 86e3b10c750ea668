"""Where the local stack keeps its files."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from centinela_local.errors import StartFailed

CHECKOUT = Path(__file__).parents[3]
_SOCKET_PATH_LIMIT = 100


@dataclass(frozen=True)
class Paths:
    """Folders and files under *root* (``.local``), an absolute path."""

    root: Path

    @classmethod
    def of(cls, local_dir: Path) -> Paths:
        return cls(local_dir.expanduser().resolve())

    @property
    def run(self) -> Path:
        """What the running stack needs: supervisor's configuration, the process list, the lock."""
        return self.root / "run"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def kafka(self) -> Path:
        return self.root / "kafka"

    @property
    def mlflow(self) -> Path:
        return self.root / "mlflow"

    @property
    def demo(self) -> Path:
        """What a demo leaves behind: its picture and summary."""
        return self.root / "demo"

    @property
    def supervisor_config(self) -> Path:
        return self.run / "supervisord.conf"

    @property
    def supervisor_pid(self) -> Path:
        return self.run / "supervisord.pid"

    @property
    def processes(self) -> Path:
        """The commands and environments that ``centinela_local.processes.exec_child`` runs."""
        return self.run / "processes.json"

    @property
    def lock(self) -> Path:
        return self.run / "lock"

    @property
    def digest(self) -> str:
        """Tells the stacks of one user apart."""
        return hashlib.sha256(os.fsencode(self.root)).hexdigest()[:10]

    def socket(self) -> Path:
        """Supervisor's socket, in a short folder that only this user can enter (a checkout may lie too deep for a
        socket).

        Raises:
            StartFailed: The folder belongs to somebody else, or its path is too long.
        """
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        base = Path(runtime) if runtime and os.access(runtime, os.W_OK) else Path(tempfile.gettempdir())
        folder = base / f"centinela-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise StartFailed(f"{folder} must be a folder that only you can enter (mode 700): remove it, or set TMPDIR")
        path = folder / f"{self.digest}.sock"
        if len(os.fsencode(path)) > _SOCKET_PATH_LIMIT:
            raise StartFailed(f"{path} is too long for a socket: set TMPDIR to a short folder")
        return path
