"""Feast's registry in a file, replaced as a whole [A]: Feast's own writes in place, and who reads meanwhile gets a
half."""

from __future__ import annotations

import os
import uuid
from typing import Any

from feast.infra.registry.file import FileRegistryStore


class ReplacedFileRegistryStore(FileRegistryStore):
    """Written aside, synced, renamed; its folder is made where it is missing."""

    def _write_registry(self, registry_proto: Any) -> None:
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.GetCurrentTime()
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        aside = self._filepath.with_name(f"{self._filepath.name}.{uuid.uuid4().hex}")
        with aside.open("wb") as file:
            file.write(registry_proto.SerializeToString())
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._filepath)
