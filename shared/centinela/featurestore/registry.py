"""Feast's registry in a file that is replaced as a whole: Feast writes in place, and readers may see half a file."""

from __future__ import annotations

import uuid
from typing import Any

from feast.infra.registry.file import FileRegistryStore

from centinela.files import write_atomically


class ReplacedFileRegistryStore(FileRegistryStore):
    """Writes atomically; makes the folder if it is missing."""

    def _write_registry(self, registry_proto: Any) -> None:
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.GetCurrentTime()
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        content = registry_proto.SerializeToString()
        write_atomically(self._filepath, lambda file: file.write(content))
