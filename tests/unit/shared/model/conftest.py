"""A bundle for the tests of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from centinela.model.export import build_bundle
from tests.support.small_models import FACTS, RECENT, TRAIN, fitted


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("bundles") / "good"
    build_bundle(fitted("hgb"), TRAIN, RECENT, FACTS, dest)
    return dest


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    return Path(shutil.copytree(good, tmp_path / "bundle"))
