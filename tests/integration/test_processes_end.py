"""SIGTERM ends every process of the stack in good order: exit 0 within ten seconds, whatever it is at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from centinela.events import RetrainRequested, encode
from centinela.features.layout import FeatureLayout
from centinela.kafka.connect import producer, topic_admin
from centinela.kafka.port import Outgoing
from centinela.settings import Settings
from centinela_local.paths import CHECKOUT
from centinela_local.processes.ports import free_port
from tests.support.served_models import small_bundle
from tests.support.waiting import until, until_started

WITHIN_S = 10.0
PROCESSES = {
    "ingest": ("centinela_ingest",),
    "gateway": ("centinela_predictor", "gateway"),
    "stream": ("centinela_predictor", "stream"),
    "drift": ("centinela_drift",),
    "trainer": ("centinela_trainer", "serve"),
    "archive": ("centinela_trainer", "archive"),
    "registry-watcher": ("centinela_registry_watcher",),
}
PORTS = {"stream": "PREDICTOR", "registry-watcher": "WATCHER"}


class Stack:
    """All processes on one broker and one registry, with a folder and a model name of their own."""

    def __init__(self, folder: Path, kafka: str, mlflow: str, model_name: str) -> None:
        self.folder, self.model_name = folder, model_name
        self.settings = Settings(kafka_bootstrap_servers=kafka)
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("CENTINELA_")} | {
            "CENTINELA_KAFKA_BOOTSTRAP_SERVERS": kafka,
            "CENTINELA_MLFLOW_TRACKING_URI": mlflow,
            "CENTINELA_DATA_DIR": str(folder),
            "CENTINELA_ATTRIBUTES": '["v1", "v2"]',
            "CENTINELA_LOG_FORMAT": "json",
            "CENTINELA_MODEL_NAME": model_name,
            "CENTINELA_PARAMS_PATH": str(CHECKOUT / "params.yaml"),
            "CENTINELA_ARCHIVE_WAIT_S": "120",
        }
        self._ports: dict[str, int] = {}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        self._ports[name] = free_port()
        variable = f"CENTINELA_{PORTS.get(name, name.upper())}_PORT"
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", *PROCESSES[name]],
                stdout=log,
                stderr=log,
                env=self._environment | {variable: str(self._ports[name])},
            )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def ready(self, name: str) -> bool:
        assert self.running[name].poll() is None, self.log(name)
        try:
            return httpx.get(f"http://127.0.0.1:{self._ports[name]}/ready", timeout=20).status_code == 200
        except httpx.TransportError:
            return False

    def await_ready(self, name: str) -> None:
        """Wait until *name* is ready; it shares the machine with the others' starts."""
        until_started(
            lambda: self.ready(name),
            f"{name} is ready",
            pids=[self.running[name].pid],
            logs=[self.folder / f"{name}.log"],
        )

    def end(self, name: str) -> int:
        """The exit code after SIGTERM; fails where there is none in time."""
        process = self.running[name]
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{name} did not end within {WITHIN_S:g} s:\n{self.log(name)[-5_000:]}") from None

    def clean_up(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def stack(broker: str, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    stack = Stack(folder, broker, mlflow_server, f"FraudDetector-{time.time_ns():x}")
    admin = topic_admin(stack.settings)
    admin.create()
    admin.close()
    small_bundle(folder / "models" / "1", FeatureLayout(("v1", "v2")))
    (folder / "models" / "current").symlink_to("1")
    for name in PROCESSES:
        stack.start(name)
    yield stack
    stack.clean_up()


@pytest.mark.parametrize("name", [name for name in PROCESSES if name != "trainer"])
def test_a_process_that_is_ready_ends_with_zero(stack: Stack, name: str) -> None:
    stack.await_ready(name)
    assert stack.end(name) == 0, stack.log(name)[-5_000:]
    assert "Traceback" not in stack.log(name)


def test_a_trainer_in_the_middle_of_a_training_ends_with_zero_and_takes_the_request_up_again(stack: Stack) -> None:
    stack.await_ready("trainer")
    request = RetrainRequested(
        request_id=f"ask-{stack.model_name}",
        model_name=stack.model_name,
        requested_by="operator",
        as_of=datetime.now(UTC),
        reason="a test",
    )
    sender = producer(stack.settings)
    sender.send(Outgoing("retrain-requests", encode(request), request.model_name.encode())).wait(20)
    sender.close()
    started = _training_of(request.request_id)
    until(lambda: started(stack.log("trainer")) == 1, "the training began")

    assert stack.end("trainer") == 0
    assert "training.cancelled" in stack.log("trainer")

    stack.start("trainer")
    until(lambda: started(stack.log("trainer")) == 2, "the request was taken up again")
    assert stack.end("trainer") == 0
    assert '"training.completed"' not in stack.log("trainer")


def _training_of(request_id: str) -> Callable[[str], int]:
    def count(log: str) -> int:
        return sum('"training.started"' in line and request_id in line for line in log.splitlines())

    return count
