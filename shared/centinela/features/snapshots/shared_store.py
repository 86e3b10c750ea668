"""Copies of snapshots on storage that other machines can read. Nothing waits long for it, and its failures stop
nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import fsspec
import structlog
from fsspec.core import url_to_fs
from prometheus_client import Counter

from centinela.errors import CentinelaError
from centinela.features.snapshots.format import name_of, position_of
from centinela.liveness.deadline import DeadlineExceeded, DeadlineRunner

EXPORTED_BY = ("gateway", "stream")
SHARED_SNAPSHOTS = Counter(
    "centinela_shared_snapshots_total", "Snapshots sent to and fetched from shared storage.", ["operation", "outcome"]
)
_log = structlog.get_logger(__name__)
T = TypeVar("T")


class _Upload(NamedTuple):
    position: int
    data: bytes
    keep: int


class SharedStorage:
    """A folder or bucket. A thread uploads the newest snapshot of each folder, and retries failed uploads.

    Failures are counted and logged, and otherwise ignored: the log is the source of truth.

    Args:
        url: What fsspec opens (``s3://bucket/prefix``, ``file:///mnt/state``); credentials as its driver takes them
            (``AWS_*``).
        patience_s: Longest wait for one answer while reading.
        retry_s: Pause after a failed upload.

    Raises:
        CentinelaError: No driver is installed for *url*.
    """

    def __init__(self, url: str, *, patience_s: float = 10.0, retry_s: float = 5.0) -> None:
        try:
            fsspec.get_filesystem_class(fsspec.utils.get_protocol(url))
        except (ValueError, ImportError) as error:
            raise CentinelaError(f"CENTINELA_SNAPSHOT_URL {url}: {error}") from error
        self._url, self._patience_s, self._retry_s = url, patience_s, retry_s
        self._runner = DeadlineRunner("shared-snapshots")
        self._changed = threading.Condition()
        self._pending: dict[str, _Upload] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="snapshot-uploads", daemon=True)
        self._thread.start()

    def folder(self, path: str) -> SharedFolder:
        """The folder at *path* below the URL."""
        return SharedFolder(self, path)

    def close(self, timeout_s: float = 5.0) -> None:
        """Finish pending uploads, for up to *timeout_s*."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_s)
        self._runner.close()

    def offer(self, path: str, position: int, data: bytes, keep: int) -> None:
        """Upload *data* soon, instead of what is still pending for the same folder."""
        with self._changed:
            self._pending[path] = _Upload(position, data, keep)
            self._changed.notify()

    def ask(self, operation: str, path: str, question: Callable[[Any, str], T], otherwise: T) -> T:
        """The result of *question*, given the file system and *path* on it; *otherwise* if the storage does not answer
        in time."""
        try:
            return self._runner.run(lambda: question(*self._at(path)), self._patience_s)
        except FileNotFoundError:
            return otherwise
        except DeadlineExceeded as error:
            self._runner = DeadlineRunner("shared-snapshots")
            self._failed(operation, path, error)
        except Exception as error:
            self._failed(operation, path, error)
        return otherwise

    def _at(self, path: str) -> tuple[Any, str]:
        fs, root = url_to_fs(self._url)
        fs.invalidate_cache()
        return fs, f"{root.rstrip('/')}/{path}"

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closed)
                if not self._pending:
                    return
                path, upload = next(iter(self._pending.items()))
            try:
                self._put(path, upload)
            except Exception as error:
                self._failed("upload", path, error)
                with self._changed:
                    if self._changed.wait_for(lambda: self._closed, self._retry_s):
                        return
                continue
            SHARED_SNAPSHOTS.labels("upload", "done").inc()
            with self._changed:
                if self._pending.get(path) is upload:
                    del self._pending[path]

    def _put(self, path: str, upload: _Upload) -> None:
        """The checksum of a truncated file fails when it is read, and the one before it is used."""
        fs, folder = self._at(path)
        fs.makedirs(folder, exist_ok=True)
        fs.pipe_file(f"{folder}/{name_of(upload.position)}", upload.data)
        fs.invalidate_cache()
        for position in sorted(positions_in(fs, folder), reverse=True)[upload.keep :]:
            fs.rm_file(f"{folder}/{name_of(position)}")

    def _failed(self, operation: str, path: str, error: Exception) -> None:
        SHARED_SNAPSHOTS.labels(operation, "failed").inc()
        _log.warning(
            "snapshot.shared_storage_failed",
            operation=operation,
            folder=path,
            detail=f"{type(error).__name__}: {error}"[:500],
        )


class SharedFolder:
    """One state's snapshots on shared storage."""

    def __init__(self, storage: SharedStorage, path: str) -> None:
        self._storage, self._path = storage, path

    def offer(self, position: int, data: bytes, keep: int) -> None:
        """Upload soon; the newest *keep* are kept."""
        self._storage.offer(self._path, position, data, keep)

    def positions(self) -> frozenset[int]:
        """The positions there; none if the storage does not answer."""
        return self._storage.ask("list", self._path, positions_in, frozenset())

    def read(self, position: int) -> bytes | None:
        """The snapshot of *position*, or None."""

        def read(fs: Any, folder: str) -> bytes:
            data: bytes = fs.cat_file(f"{folder}/{name_of(position)}")
            return data

        data = self._storage.ask("download", self._path, read, None)
        if data is not None:
            SHARED_SNAPSHOTS.labels("download", "done").inc()
        return data

    def folders(self) -> frozenset[str]:
        """Names of the folders below."""

        def names(fs: Any, folder: str) -> frozenset[str]:
            return frozenset(
                item["name"].rstrip("/").rpartition("/")[2]
                for item in fs.ls(folder, detail=True)
                if item["type"] == "directory"
            )

        return self._storage.ask("list", self._path, names, frozenset())


def positions_in(fs: Any, folder: str) -> frozenset[int]:
    """The positions of the snapshots in *folder* of the file system *fs*."""
    found = (position_of(name.rpartition("/")[2]) for name in fs.ls(folder, detail=False))
    return frozenset(position for position in found if position is not None)
