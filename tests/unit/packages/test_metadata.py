"""Each package declares what it imports, and nothing that it does not use."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packages.check import FOLDERS, ROOT

NOT_IMPORTED = {
    "centinela": {"httptools", "uvloop", "s3fs"},  # by name: uvicorn's protocols, fsspec's driver
    "centinela-trainer": {"dvc"},  # the command
    "centinela-local": {"centinela-drift", "centinela-predictor", "centinela-registry-watcher", "mlflow"},  # processes
}
DISTRIBUTIONS = packages_distributions()


def declared(project: dict[str, Any]) -> set[str]:
    """Names of the distributions that *project* asks for, with all its extras."""
    lines = list(project["dependencies"])
    for extra in project.get("optional-dependencies", {}).values():
        lines += extra
    return {canonicalize_name(Requirement(line).name) for line in lines}


def imported(folder: Path) -> Iterator[str]:
    """Top-level names that the modules in *folder* import, at once or in a function."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield node.module.split(".")[0]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_package_declares_what_it_imports(folder: str) -> None:
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    name = project["name"]
    module = name.replace("-", "_")
    names = set(imported(ROOT / folder / module)) - set(sys.stdlib_module_names) - {module}
    owners = {top: {canonicalize_name(owner) for owner in DISTRIBUTIONS.get(top, [top])} for top in names}

    assert [top for top, candidates in owners.items() if not candidates & declared(project)] == []
    assert declared(project) - set[str]().union(*owners.values()) - {name} == NOT_IMPORTED.get(name, set()) - {name}
