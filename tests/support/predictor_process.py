"""``python -m centinela_predictor`` as a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from centinela_local.processes.startup import StartupWait, activity

DEADLINE_S = 90.0


class PredictorProcess:
    """``python -m centinela_predictor`` in *role*."""

    def __init__(self, folder: Path, kafka: str, port: int, model_name: str, role: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CENTINELA_")} | {
            "CENTINELA_KAFKA_BOOTSTRAP_SERVERS": kafka,
            "CENTINELA_MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            "CENTINELA_DATA_DIR": str(folder),
            "CENTINELA_GATEWAY_PORT": str(port),
            "CENTINELA_PREDICTOR_PORT": str(port),
            "CENTINELA_MODEL_NAME": model_name,
            "CENTINELA_ATTRIBUTES": '["v1", "v2"]',
            "CENTINELA_LOG_FORMAT": "json",
            "CENTINELA_GATEWAY_DEADLINE_S": "8",
        }
        self.log = (folder / f"{role}-{port}.log").open("a+")
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "centinela_predictor", role], env=environment, stderr=self.log
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)

    def answers(self, path: str, status: int) -> httpx.Response:
        """The answer, once *path* gives *status*."""
        wait = StartupWait(lambda: activity([self.popen.pid], [Path(self.log.name)]))
        while True:
            try:
                response = self.client.get(path)
                if response.status_code == status:
                    return response
            except httpx.TransportError:
                assert self.popen.poll() is None, self.output()
            problem = wait.problem()
            assert problem is None, f"{path}: {problem}\n{self.output()}"
            threading.Event().wait(0.05)

    def listens(self) -> bool:
        """Whether a new connection is taken."""
        try:
            httpx.get(f"{self.client.base_url}/health", timeout=20)
        except httpx.TransportError:
            return False
        return True

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def end(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(DEADLINE_S)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.popen.kill()
        self.popen.wait()

    def clean_up(self) -> None:
        self.client.close()
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        self.log.close()
