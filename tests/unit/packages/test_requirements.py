"""The requirement files of the images name what the services' metadata asks for, in the versions that are tested."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packages.check import ROOT

REQUIREMENTS = ROOT / "requirements"
IMAGES = {
    "centinela": "centinela[web]",
    "ingest": "centinela-ingest",
    "predictor": "centinela-predictor[s3]",
    "feast": "centinela-predictor[feast,s3]",
    "drift": "centinela-drift",
    "registry-watcher": "centinela-registry-watcher",
    "trainer": "centinela-trainer[s3]",
    "mlflow": "mlflow",
}


def dependencies(root: str) -> set[str]:
    """What *root* needs in this environment, as ``name==version``, by the metadata of what is installed."""
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(root)]
    names = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        names.add(name)
        for extra in ["", *requirement.extras]:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for line in requires(name) or []:
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
    return {f"{name}=={version(name)}" for name in names if not name.startswith("centinela")}


def locked(path: Path) -> Iterator[str]:
    """What *path* pins in this environment."""
    for line in re.findall(r"^[a-z0-9].*?(?= \\$)", path.read_text(), re.MULTILINE):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            yield f"{canonicalize_name(requirement.name)}{requirement.specifier}"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_installs_what_its_service_declares_and_nothing_else(image: str) -> None:
    assert set(locked(REQUIREMENTS / "images" / f"{image}.txt")) == dependencies(IMAGES[image]), (
        "run `make requirements`"
    )


def test_every_image_has_its_file() -> None:
    assert {path.stem for path in (REQUIREMENTS / "images").glob("*.txt")} == set(IMAGES)
