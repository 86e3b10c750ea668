"""An MLflow server for the time of a test."""

from __future__ import annotations

from pathlib import Path

from centinela_local.mlflow_server import MLFLOW_ENVIRONMENT, answers, mlflow_command
from centinela_local.processes.background import BackgroundProcess
from centinela_local.processes.ports import LOOPBACK, free_port


class TemporaryMlflow:
    """An MLflow server on a free port, for tests.

    Args:
        folder: An empty folder, which the caller removes.
    """

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.uri = f"http://{LOOPBACK}:{port}"
        self._process = BackgroundProcess(
            "MLflow",
            mlflow_command(folder, port),
            log=folder / "mlflow.log",
            answers=lambda: answers(f"{self.uri}/health"),
            env=MLFLOW_ENVIRONMENT,
        )

    def start(self) -> None:
        """Start, or start again on the same data, and wait until it answers."""
        self._process.start()

    def stop(self) -> None:
        """End it with its workers. Idempotent."""
        self._process.stop(grace_s=5)
