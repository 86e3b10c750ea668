"""Build every package, install each into an empty environment from its own metadata, and import all its modules.

    python -m tests.packages.check [PACKAGE ...]

An undeclared import fails here: an environment holds nothing but what the package (with one of its extras, each in
turn) asks for, in the versions of ``requirements/runtime.txt``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "runtime.txt"
FOLDERS = (
    "shared",
    "services/ingest",
    "services/predictor",
    "services/drift",
    "services/registry-watcher",
    "services/trainer",
    "deploy/local",
)
UV = (sys.executable, "-m", "uv")

_IMPORT_ALL = """
import importlib, pkgutil, sys
top, skipped = sys.argv[1], tuple(sys.argv[2:])
failed = count = 0
def outside(name):
    return not any(name == prefix or name.startswith(prefix + ".") for prefix in skipped)
def names(package):
    yield package
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, package + "."):
        if outside(module.name):
            yield from names(module.name) if module.ispkg else [module.name]
for name in names(top):
    count += 1
    try:
        importlib.import_module(name)
    except Exception as error:
        failed += 1
        print(f"  {name}: {type(error).__name__}: {error}")
print(count)
sys.exit(failed > 0)
"""


@dataclass(frozen=True)
class Package:
    """A distribution. ``needs_extra``: by extra, the modules that import only with it."""

    name: str
    module: str
    extras: tuple[str, ...]
    needs_extra: dict[str, list[str]]
    wheel: Path


@dataclass(frozen=True)
class Case:
    """One environment: *package* with *extra*; the modules ``skipped`` need another extra."""

    package: Package
    extra: str | None

    @property
    def requirement(self) -> str:
        extra = f"[{self.extra}]" if self.extra else ""
        return f"{self.package.name}{extra} @ {self.package.wheel.as_uri()}"

    @property
    def label(self) -> str:
        return f"{self.package.name}[{self.extra}]" if self.extra else self.package.name


def build(folder: Path, wheels: Path) -> Package:
    """Build the package in *folder* into *wheels*."""
    with (folder / "pyproject.toml").open("rb") as file:
        content = tomllib.load(file)
    project = content["project"]
    module = project["name"].replace("-", "_")
    _run(*UV, "build", "-q", "--wheel", "--no-build-isolation", "--python", sys.executable, "-o", wheels, folder)
    [wheel] = wheels.glob(f"{module}-{project['version']}-*.whl")
    return Package(
        name=project["name"],
        module=module,
        extras=tuple(project.get("optional-dependencies", {})),
        needs_extra=content.get("tool", {}).get("centinela", {}).get("needs-extra", {}),
        wheel=wheel,
    )


def cases(package: Package) -> Iterator[Case]:
    """The package alone, then with each extra of it that has modules of its own."""
    yield Case(package, None)
    for extra in package.needs_extra:
        yield Case(package, extra)


def check(case: Case, siblings: Sequence[Package], work: Path) -> str | None:
    """Install and import; returns what failed."""
    environment = work / case.label
    python = environment / "bin" / "python"
    constraints = work / "siblings.txt"
    others = [f"{package.name} @ {package.wheel.as_uri()}" for package in siblings if package != case.package]
    constraints.write_text("\n".join(others))
    _run(*UV, "venv", "-q", "--python", sys.executable, environment)
    installed = subprocess.run(
        [*UV, "pip", "install", "-q", "--python", python, "-c", LOCK, "-c", constraints, case.requirement],
        capture_output=True,
        text=True,
    )
    if installed.returncode:
        return installed.stderr
    package = case.package
    skipped = [name for extra, names in package.needs_extra.items() if extra != case.extra for name in names]
    imported = subprocess.run(
        [python, "-I", "-c", _IMPORT_ALL, package.module, *skipped], capture_output=True, text=True, cwd=work
    )
    return imported.stdout + imported.stderr if imported.returncode else None


def main() -> int:
    """Check the packages that the command line names, or all; the number of environments that failed."""
    parser = argparse.ArgumentParser(prog="tests.packages.check", description=__doc__)
    parser.add_argument("packages", nargs="*", help="names of distributions; all where none is given")
    chosen = parser.parse_args().packages
    failures = 0
    with tempfile.TemporaryDirectory(prefix="centinela-packages-") as folder:
        work = Path(folder)
        packages = [build(ROOT / name, work / "wheels") for name in FOLDERS]
        for package in packages:
            if chosen and package.name not in chosen:
                continue
            for case in cases(package):
                started = time.monotonic()
                failure = check(case, packages, work)
                failures += failure is not None
                print(
                    f"{'FAILED' if failure else 'ok':<7}{case.label:<28}{time.monotonic() - started:5.1f} s", flush=True
                )
                if failure:
                    print(failure)
    return min(failures, 125)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
