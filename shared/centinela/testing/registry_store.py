"""A registry's store in memory, for tests. It passes the contract suite that MLflow passes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from centinela.errors import CentinelaError, DependencyUnavailable
from centinela.model.registry import BUNDLE_FOLDER
from centinela.model.registry_store import ModelRun, ModelState, ModelVersion, UnknownVersion


@dataclass
class _Model:
    aliases: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    versions: dict[str, ModelVersion] = field(default_factory=dict)


class FakeStore:
    """``centinela.model.registry_store.Store``. ``unavailable = True`` makes every call raise
    ``DependencyUnavailable``."""

    def __init__(self) -> None:
        self.unavailable = False
        self._models: dict[str, _Model] = {}
        self._artifacts: dict[str, dict[str, bytes]] = {}
        self._runs: dict[str, ModelRun] = {}

    def add_version(
        self,
        model: str,
        created_at: datetime,
        *,
        bundle: Mapping[str, bytes] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        run_tags: Mapping[str, str] | None = None,
    ) -> str:
        """Register a version whose run has *bundle* in its artifacts, and *run_tags*; the version."""
        registered = self._models.setdefault(model, _Model())
        version = str(len(registered.versions) + 1)
        run_id = f"run-{model}-{version}"
        self._artifacts[run_id] = {f"{BUNDLE_FOLDER}/{name}": data for name, data in (bundle or {}).items()}
        self._runs[run_id] = ModelRun(run_id, "baseline", "FINISHED", created_at, dict(run_tags or {}))
        registered.versions[version] = ModelVersion(
            version, created_at, run_id, (), dict(tags or {}), dict(metrics or {})
        )
        return version

    def state(self, model: str) -> ModelState:
        registered = self._of(model)
        return ModelState(dict(registered.aliases), dict(registered.tags))

    def versions(self, model: str, limit: int) -> list[ModelVersion]:
        registered = self._of(model)
        newest = list(registered.versions.values())[::-1][:limit]
        return [
            replace(v, aliases=tuple(sorted(a for a, at in registered.aliases.items() if at == v.version)))
            for v in newest
        ]

    def version(self, model: str, version: str) -> ModelVersion:
        registered = self._version(model, version)
        return replace(
            registered, aliases=tuple(sorted(alias for alias, at in self._of(model).aliases.items() if at == version))
        )

    def run(self, run_id: str) -> ModelRun | None:
        self._check()
        return self._runs.get(run_id)

    def set_alias(self, model: str, alias: str, version: str) -> None:
        self._version(model, version)
        self._of(model).aliases[alias] = version

    def delete_alias(self, model: str, alias: str) -> None:
        self._of(model).aliases.pop(alias, None)

    def set_tag(self, model: str, key: str, value: str, *, version: str | None = None) -> None:
        if version is None:
            self._of(model).tags[key] = value
        else:
            registered = self._version(model, version)
            self._of(model).versions[version] = replace(registered, tags={**registered.tags, key: value})

    def tagged(self, model: str, key: str, value: str) -> Collection[str]:
        return [v.version for v in self._of(model).versions.values() if v.tags.get(key) == value]

    def run_of(self, model: str, version: str) -> str | None:
        return self._version(model, version).run_id

    def list_artifacts(self, run_id: str, folder: str) -> Collection[str]:
        self._check()
        return [path.rsplit("/", 1)[-1] for path in self._artifacts[run_id] if path.startswith(f"{folder}/")]

    def fetch_artifact(self, run_id: str, path: str, dest: Path) -> None:
        self._check()
        if path not in self._artifacts[run_id]:
            raise CentinelaError(f"no artifact {path}")
        dest.write_bytes(self._artifacts[run_id][path])

    def _of(self, model: str) -> _Model:
        self._check()
        return self._models.get(model, _Model())

    def _version(self, model: str, version: str) -> ModelVersion:
        try:
            return self._of(model).versions[version]
        except KeyError:
            raise UnknownVersion(f"{model} has no version {version}") from None

    def _check(self) -> None:
        if self.unavailable:
            raise DependencyUnavailable("MLflow does not answer", dependency="mlflow")
