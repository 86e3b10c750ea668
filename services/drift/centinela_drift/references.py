"""Frozen references from model bundles, each downloaded once and its manifest kept in a folder."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import structlog

from centinela.errors import ModelRejected
from centinela.files import write_atomically
from centinela.model.bundle import MANIFEST, Manifest, verify
from centinela_drift.decision.detection import Reference

_log = structlog.get_logger(__name__)
_VERSION = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


class BundleReferences:
    """References by model version.

    Args:
        download: ``Registry.download``: puts a version's bundle into a folder and returns it; blocks. Raises
            DependencyUnavailable or ModelRejected.
        folder: Where manifests are kept.
    """

    def __init__(self, download: Callable[[str, Path], Path], folder: Path) -> None:
        self._download = download
        self._folder = folder
        self._references: dict[str, Reference] = {}

    async def get(self, version: str) -> Reference:
        """The reference of *version*.

        Raises:
            DependencyUnavailable: The registry does not answer.
            ModelRejected: The bundle does not exist, or is damaged.
        """
        if version not in self._references:
            self._references[version] = await asyncio.to_thread(self._read, version)
        return self._references[version]

    def manifest_path(self, version: str) -> Path:
        """Where the manifest of *version* is kept."""
        if not _VERSION.fullmatch(version):
            raise ModelRejected(f"{version!r} is not a model version")
        return self._folder / f"{version}.json"

    def _read(self, version: str) -> Reference:
        path = self.manifest_path(version)
        if not path.exists():
            self._fetch(version, path)
        try:
            return reference_of(msgspec.json.decode(path.read_bytes(), type=Manifest), version)
        except msgspec.MsgspecError as error:
            path.unlink(missing_ok=True)
            raise ModelRejected(f"the manifest of version {version} is damaged: {error}") from error

    def _fetch(self, version: str, path: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        download = Path(tempfile.mkdtemp(prefix=".download-", dir=self._folder))
        try:
            bundle = self._download(version, download / "bundle")
            verify(bundle)
            manifest = (bundle / MANIFEST).read_bytes()
            write_atomically(path, lambda file: file.write(manifest))
        finally:
            shutil.rmtree(download, ignore_errors=True)
        _log.info("reference.fetched", model_version=version)


def reference_of(manifest: Manifest, version: str) -> Reference:
    """The reference that *version* is compared with."""
    frozen = manifest.reference
    return Reference(
        version,
        manifest.feature_names,
        frozen.count_matrix().astype(np.int64),
        np.array(frozen.score_counts, dtype=np.int64),
        frozen.alert_rate,
        frozen.average_precision,
    )
