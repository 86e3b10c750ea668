"""The documents name files, commands and code that exist."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from centinela_local.paths import CHECKOUT

FOLDERS = ("docs", "services", "shared", "deploy", "benchmarks", "tests")
DOCUMENTS = sorted(
    path
    for path in (*CHECKOUT.glob("*.md"), *(found for name in FOLDERS for found in (CHECKOUT / name).rglob("*.md")))
    if "node_modules" not in path.parts
)
LINK = re.compile(r"\[[^\]]*\]\((?!\w+:)([^)\s]+)\)")
PATH = re.compile(r"(?<![\w./<>*-])((?:[\w-]+/)+[\w-]+\.(?:py|md)|[\w-]+\.py)(?![\w/*])")
MODULE = re.compile(r"(?<![\w./-])(centinela(?:_[a-z_]+)?(?:\.\w+)+)(?![\w(./])")
NAME_IN = re.compile(r"`([A-Za-z_]\w*)[\w.()]*` in \[[^\]]*\]\(([^)#\s]+\.py)\)")
TARGET = re.compile(r"(?:`|^\s+|&& )make (?:-s )?([a-z][a-z-]*)", re.MULTILINE)
NOT_MODULES = (
    "centinela.commands",
    "centinela.settings",
    "centinela.metrics",
    "centinela.model_uri",
    "centinela.draft",
)
"""Names of entry point groups and tags, besides modules of the same name."""

each = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))


@cache
def tracked() -> frozenset[str]:
    """Every file, as a path from the root with a leading slash."""
    roots = [path for path in CHECKOUT.iterdir() if path.is_file()]
    roots += [path for name in FOLDERS for path in (CHECKOUT / name).rglob("*") if path.is_file()]
    return frozenset(f"/{path.relative_to(CHECKOUT).as_posix()}" for path in roots)


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings of *document*."""
    headings = re.findall(r"^#+ +(.+)$", document.read_text(), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@each
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    broken = []
    for link in LINK.findall(document.read_text()):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@each
def test_every_file_that_is_mentioned_exists(document: Path) -> None:
    mentioned = set(PATH.findall(re.sub(r"\]\([^)]*\)", "]", document.read_text())))
    missing = {path for path in mentioned if not any(file.endswith(f"/{path}") for file in tracked())}
    assert not missing


@each
def test_every_module_that_is_mentioned_exists(document: Path) -> None:
    missing = set()
    for name in set(MODULE.findall(document.read_text())) - set(NOT_MODULES):
        folder = "/" + name.replace(".", "/")
        parent, _, attribute = folder.rpartition("/")
        files = [file for file in tracked() if file.endswith((f"{folder}.py", f"{folder}/__init__.py"))]
        owners = [file for file in tracked() if file.endswith((f"{parent}.py", f"{parent}/__init__.py"))]
        if not files and not any(attribute in (CHECKOUT / file[1:]).read_text() for file in owners):
            missing.add(name)
    assert not missing


@each
def test_every_name_that_is_said_to_be_in_a_file_is_there(document: Path) -> None:
    wrong = [
        (name, path)
        for name, path in NAME_IN.findall(document.read_text())
        if not re.search(rf"\b{name}\b", (document.parent / path).resolve().read_text())
    ]
    assert not wrong


@each
def test_every_make_target_that_is_mentioned_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    assert set(TARGET.findall(document.read_text())) <= targets


def test_the_index_of_decisions_has_each_record_under_its_title() -> None:
    folder = CHECKOUT / "docs" / "decisions"
    records = {f"[{title_of(path)}]({path.name})" for path in folder.glob("[0-9]*.md")}
    assert records == set(re.findall(r"\[[^\]]*\]\([0-9][^)]*\)", (folder / "README.md").read_text()))


def title_of(record: Path) -> str:
    """The heading of *record* without its number."""
    return record.read_text().splitlines()[0].partition(". ")[2]
