"""A real MLflow server: sqlite for runs and registry, artifacts served from a folder next to it."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from pathlib import Path

from centinela_local.processes.ports import LOOPBACK

MLFLOW_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


def mlflow_command(folder: Path, port: int) -> list[str]:
    """The command that serves runs and registry of *folder* on the loopback interface. The folder must exist when it
    runs."""
    root = folder.resolve()
    return [
        sys.executable,
        "-m",
        "centinela_local.processes.process_group",
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        f"sqlite:///{root / 'mlflow.db'}",
        "--artifacts-destination",
        str(root / "artifacts"),
        "--host",
        LOOPBACK,
        "--port",
        str(port),
        "--workers",
        "1",
        "--allowed-hosts",
        f"{LOOPBACK}:{port},localhost:{port}",
    ]


def answers(url: str, timeout_s: float = 2.0) -> bool:
    """Whether *url* answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
