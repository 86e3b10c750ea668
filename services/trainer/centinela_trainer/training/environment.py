"""What a run was made with: interpreter, packages, code."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "scikit-learn",
    "numpy",
    "pandas",
    "pyarrow",
    "duckdb",
    "skops",
    "skl2onnx",
    "onnxruntime",
    "treelite",
    "mlflow-skinny",
)
MODEL_PACKAGES = ("scikit-learn", "numpy", "pandas", "skops")


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Installed versions of *names*; what is not installed is left out."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def pip_requirements() -> list[str]:
    """What loading the sklearn model needs, pinned to what is installed."""
    return [f"{name}=={pinned}" for name, pinned in package_versions(MODEL_PACKAGES).items()]


def code_commit() -> str:
    """``CENTINELA_CODE_COMMIT``, else the commit of this module's checkout, else ``unknown``."""
    if commit := os.environ.get("CENTINELA_CODE_COMMIT"):
        return commit
    git = shutil.which("git")
    if git is None:
        return "unknown"
    done = subprocess.run(
        [git, "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False, timeout=10
    )
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def environment() -> dict[str, Any]:
    """The content of ``environment.json``."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "code_commit": code_commit(),
        "packages": package_versions(),
    }
