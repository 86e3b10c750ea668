"""The bundles on this machine: ``models/<version>/`` and the links ``current`` (champion) and ``challenger``."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from centinela.clock import Clock
from centinela.errors import DependencyUnavailable, ModelRejected
from centinela_predictor.models.slot import Alias

_VERSION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_ABANDONED_S = 3600.0
LINKS: dict[Alias, str] = {"champion": "current", "challenger": "challenger"}


class Downloads(Protocol):
    """The part of the registry that is needed here."""

    def download(self, version: str, dest: Path) -> Path:
        """Download the bundle of *version* into *dest*; its path. Raises ``DependencyUnavailable``,
        ``ModelRejected``."""


@contextmanager
def _disk() -> Iterator[None]:
    """A disk that fails is a dependency that is unavailable: the models in service stay."""
    try:
        yield
    except OSError as error:
        raise DependencyUnavailable(f"the folder of models cannot be written: {error}", dependency="disk") from error


class BundleStore:
    """Keeps every bundle that was served, shared by the predictors of this machine.

    Args:
        folder: The folder ``models``; created if it does not exist.
        verify: Checks the digests of a bundle's files; raises ``ModelRejected``.
        clock: Gives the age of leftover files.
    """

    def __init__(self, folder: Path, verify: Callable[[Path], object], clock: Clock) -> None:
        self._folder = folder
        self._verify = verify
        self._clock = clock

    def fetch(self, version: str, registry: Downloads) -> Path:
        """The verified bundle of *version*: the local one, else downloaded to a temporary folder, verified and renamed.

        Raises:
            ModelRejected: The bundle is damaged, or *version* is not a valid folder name.
            DependencyUnavailable: It is not local and the registry is unavailable, or the disk fails.
        """
        if not _VERSION.match(version):
            raise ModelRejected(f"{version[:80]!r} cannot name a version")
        target = self._folder / version
        if not self._is_valid(target):
            with _disk():
                self._download(version, registry, target)
        return target

    def _download(self, version: str, registry: Downloads, target: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._clear_abandoned()
        aside = self._folder / f".incoming-{version}-{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            bundle = registry.download(version, aside)
            self._verify(bundle)
            self._put(bundle, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _clear_abandoned(self) -> None:
        """Remove what killed processes left; a download that may still be running is left alone for an hour."""
        for pattern in (".incoming-*", ".damaged-*"):
            for left in self._folder.glob(pattern):
                with suppress(FileNotFoundError):
                    if self._clock.now().timestamp() - left.stat().st_mtime > _ABANDONED_S:
                        shutil.rmtree(left, ignore_errors=True)

    def linked(self, alias: Alias) -> str | None:
        """The version that *alias*'s link names, where its folder is there; else None."""
        link = self._folder / LINKS[alias]
        return link.readlink().name if link.is_symlink() and link.is_dir() else None

    def path(self, version: str) -> Path:
        """The folder of *version*'s bundle, whether or not it exists."""
        return self._folder / version

    def link(self, alias: Alias, version: str | None) -> None:
        """Point *alias*'s link at *version*, by one rename; None removes it. Raises ``DependencyUnavailable`` for the
        disk."""
        link = self._folder / LINKS[alias]
        with _disk():
            if version is None:
                link.unlink(missing_ok=True)
                return
            aside = self._folder / f".link-{link.name}-{os.getpid()}"
            aside.unlink(missing_ok=True)
            aside.symlink_to(version)
            aside.replace(link)

    def _is_valid(self, target: Path) -> bool:
        if not target.is_dir():
            return False
        try:
            self._verify(target)
        except (ModelRejected, OSError):
            return False
        return True

    def _put(self, bundle: Path, target: Path) -> None:
        """Rename *bundle* to *target*; a valid one that another process put there meanwhile stays."""
        if target.exists() and not self._is_valid(target):
            damaged = target.with_name(f".damaged-{target.name}-{os.getpid()}")
            target.rename(damaged)
            shutil.rmtree(damaged, ignore_errors=True)
        try:
            bundle.rename(target)
        except OSError:
            if not self._is_valid(target):
                raise
