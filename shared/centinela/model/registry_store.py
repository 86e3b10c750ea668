"""What a model registry is kept in: MLflow (``mlflow_store``) or memory, in tests (``centinela.testing``). Pure: the
port and its records."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from centinela.errors import CentinelaError


class UnknownVersion(CentinelaError):
    """The registry has no such version."""


@dataclass(frozen=True)
class ModelVersion:
    """A version of the registered model. ``metrics`` are those of its run."""

    version: str
    created_at: datetime
    run_id: str | None
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelRun:
    """The run that made a version: its name (``hgb_baseline``), how it ended, when it started, its tags."""

    run_id: str
    name: str
    status: str
    started_at: datetime
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelState:
    """A registered model: alias to version, and its own tags. Empty where it does not exist yet."""

    aliases: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


class Store(Protocol):
    """What the registry is kept in: MLflow, or the fake.

    Every call raises ``DependencyUnavailable`` where the store does not answer in time, and ``UnknownVersion`` for a
    version that is not there.
    """

    def state(self, model: str) -> ModelState:
        """Aliases and tags in one call."""

    def versions(self, model: str, limit: int) -> list[ModelVersion]:
        """The newest versions, newest first."""

    def version(self, model: str, version: str) -> ModelVersion:
        """One version."""

    def run(self, run_id: str) -> ModelRun | None:
        """The run *run_id*; None where it was deleted for good."""

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Point *alias* to *version*."""

    def delete_alias(self, model: str, alias: str) -> None:
        """Remove *alias*, where it is there."""

    def set_tag(self, model: str, key: str, value: str, *, version: str | None = None) -> None:
        """Tag *version*, or the model itself."""

    def tagged(self, model: str, key: str, value: str) -> Collection[str]:
        """The versions whose tag *key* is *value*."""

    def run_of(self, model: str, version: str) -> str | None:
        """The run that made *version*."""

    def list_artifacts(self, run_id: str, folder: str) -> Collection[str]:
        """Names of the files in *folder* of the run's artifacts."""

    def fetch_artifact(self, run_id: str, path: str, dest: Path) -> None:
        """Write the artifact at *path* to the file *dest*."""
