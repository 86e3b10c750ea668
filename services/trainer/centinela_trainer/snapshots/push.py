"""Carries snapshots to a remote, in a thread of its own: no training waits for it, none fails with it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import fsspec
import structlog
from fsspec.core import url_to_fs

from centinela.clock import Clock
from centinela.errors import CentinelaError
from centinela.liveness.retry import Backoff
from centinela_trainer import metrics
from centinela_trainer.snapshots.format import PREFIX
from centinela_trainer.snapshots.store import DIRECTORY, SnapshotStore, object_key

_log = structlog.get_logger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _END_S = 2.0, 300.0, 2.0
_WHOLE_OR_NOT_AT_ALL = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"})
"""Stores in which a file that is being written is not seen before it is whole."""


@dataclass(frozen=True)
class Pushed:
    """What a push moved; files that the remote had are not counted."""

    files: int
    bytes: int


class SnapshotRemote:
    """A folder or bucket in the layout of a DVC remote.

    Args:
        url: A path, or what fsspec opens (``s3://bucket/prefix``); credentials as its driver takes them (``AWS_*``).

    Raises:
        CentinelaError: No driver is installed for *url*.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            fsspec.get_filesystem_class(fsspec.utils.get_protocol(url))
        except (ValueError, ImportError) as error:
            raise CentinelaError(f"snapshot_remote {url}: {error}") from error

    def push(self, store: SnapshotStore, name: str) -> Pushed:
        """Copy what the remote lacks of the snapshot *name*; its list of files last, so that what is listed is there.

        Raises whatever the driver raises; may be repeated.
        """
        fs, root = url_to_fs(self.url)
        files = size = 0
        for content in [*(entry.md5 for entry in store.entries(name)), name.removeprefix(PREFIX) + DIRECTORY]:
            source, target = store.object_path(content), f"{root.rstrip('/')}/{object_key(content)}"
            if fs.exists(target):
                continue
            _put(fs, str(source), target)
            files, size = files + 1, size + source.stat().st_size
        return Pushed(files, size)

    def holds(self, name: str) -> bool:
        """Whether the whole snapshot *name* is there. Raises whatever the driver raises."""
        fs, root = url_to_fs(self.url)
        return bool(fs.exists(f"{root.rstrip('/')}/{object_key(name.removeprefix(PREFIX) + DIRECTORY)}"))


def _put(fs: Any, source: str, target: str) -> None:
    fs.makedirs(target.rpartition("/")[0], exist_ok=True)
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if protocols & _WHOLE_OR_NOT_AT_ALL:
        fs.put_file(source, target)
        return
    part = f"{target}.part"
    fs.put_file(source, part)
    fs.mv(part, target)


class SnapshotPusher:
    """Pushes each snapshot of *store* to *remote*, and tries again after growing pauses until it is there.

    What was pushed is noted in ``.pushed/`` next to the snapshots, so that a new process continues where the last one
    stopped.
    """

    def __init__(
        self, store: SnapshotStore, remote: SnapshotRemote, clock: Clock, *, first_pause_s: float = _FIRST_PAUSE_S
    ) -> None:
        self._store = store
        self._remote = remote
        self._clock = clock
        self._backoff = Backoff(first_s=first_pause_s, max_s=_LONGEST_PAUSE_S)
        self._noted = store.root / ".pushed"
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snapshot-pusher", daemon=True)

    def start(self) -> None:
        """Begin with what no process before has pushed."""
        self._wake.set()
        self._thread.start()

    def wake(self) -> None:
        """There may be something new; returns at once."""
        self._wake.set()

    def close(self) -> None:
        """Stop; a push under way is finished by the next process."""
        self._stop.set()
        self._wake.set()
        self._thread.join(_END_S)

    def pending(self) -> list[str]:
        """Digests of the snapshots that are not known to be there."""
        return [name for name in self._store.digests() if self._note(name) != self._remote.url]

    def push_pending(self) -> bool:
        """Push what is not there yet; whether everything is there now."""
        failures = 0
        for name in self.pending():
            started = self._clock.monotonic()
            try:
                pushed = self._remote.push(self._store, name)
            except Exception as error:  # any driver, any kind: an unavailable remote must not end the trainer
                failures += 1
                metrics.SNAPSHOT_PUSH_FAILURES.inc()
                _log.warning(
                    "snapshot.push_failed",
                    dataset_digest=name,
                    remote=self._remote.url,
                    error=f"{type(error).__name__}: {error}"[:300],
                )
                continue
            self._noted.mkdir(exist_ok=True)
            (self._noted / name.removeprefix(PREFIX)).write_text(self._remote.url)
            metrics.SNAPSHOTS_PUSHED.inc()
            metrics.SNAPSHOT_PUSHED_BYTES.inc(pushed.bytes)
            _log.info(
                "snapshot.pushed",
                dataset_digest=name,
                remote=self._remote.url,
                files=pushed.files,
                bytes=pushed.bytes,
                duration_s=round(self._clock.monotonic() - started, 3),
            )
        metrics.SNAPSHOTS_UNPUSHED.set(failures)
        return not failures

    def _note(self, name: str) -> str | None:
        try:
            return (self._noted / name.removeprefix(PREFIX)).read_text()
        except FileNotFoundError:
            return None

    def _run(self) -> None:
        wait_s: float | None = None
        while not self._stop.is_set():
            self._wake.wait(wait_s)
            self._wake.clear()
            if self._stop.is_set():
                return
            if self.push_pending():
                self._backoff.reset()
                wait_s = None
            else:
                wait_s = self._backoff.next_s()
