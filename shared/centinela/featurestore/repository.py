"""Opens the feature store that ``deploy/feast`` describes, for any data directory, and applies its definitions."""

from __future__ import annotations

import fcntl
import os
import runpy
from pathlib import Path
from string import Template
from typing import Any

import yaml
from feast import Entity, FeatureService, FeatureStore, FeatureView
from feast.data_source import DataSource
from feast.repo_config import RepoConfig

LOCAL, REDIS, DEFINITIONS = "feature_store.yaml", "redis.yaml", "features.py"
FOLDER = "feast"


def open_store(repo: Path, data_dir: Path, redis: str | None = None) -> FeatureStore:
    """Feast's own store object, on the registry, the archive and (where *redis* is None) the online file below
    *data_dir*.

    Args:
        repo: Folder with ``feature_store.yaml`` and ``redis.yaml``.
        redis: Feast's connection string, ``host:port,option=value,...``.
    """
    data = data_dir.expanduser().absolute()
    text = (repo / (REDIS if redis else LOCAL)).read_text()
    values = yaml.safe_load(
        Template(text).safe_substitute(os.environ, CENTINELA_DATA_DIR=data, CENTINELA_FEAST_REDIS=redis or "")
    )
    values["registry"]["path"] = str(data / FOLDER / "registry.db")
    values["offline_store"]["root"] = str(data)
    if not redis:
        values["online_store"]["path"] = str(data / FOLDER / "online.db")
    config = RepoConfig(**values)
    config.repo_path = repo.absolute()
    return FeatureStore(config=config)


def apply(store: FeatureStore, repo: Path, data_dir: Path) -> None:
    """What ``feast apply`` does, without leaving the folder; one process at a time."""
    folder = data_dir.expanduser().absolute() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    kinds = (Entity, FeatureView, FeatureService, DataSource)
    definitions: list[Any] = [
        value for value in runpy.run_path(str(repo / DEFINITIONS)).values() if isinstance(value, kinds)
    ]
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        store.apply(definitions)
