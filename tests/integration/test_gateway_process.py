"""Both roles as processes: they start from their disk, say what they wait for, and end in good order."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from centinela.consuming.table_reader import open_table
from centinela.features.layout import FeatureLayout
from centinela.kafka.headers import header
from centinela.kafka.topic_admin import TopicAdmin
from centinela_local.processes.ports import free_port
from centinela_predictor.settings import PredictorSettings
from tests.support.held_open import HeldOpen
from tests.support.predictor_process import DEADLINE_S
from tests.support.predictor_process import PredictorProcess as Process
from tests.support.served_models import small_bundle
from tests.support.waiting import until

NOBODY = "127.0.0.1:9"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def run(kafka: str, port: int | None = None, model_name: str = "FraudDetector", role: str = "gateway") -> Process:
        processes.append(Process(tmp_path, kafka, port or free_port(), model_name, role))
        return processes[-1]

    yield run
    for process in processes:
        process.clean_up()


def provide(settings: PredictorSettings, folder: Path) -> None:
    """The topics, and a model on the disk of *folder*."""
    admin = TopicAdmin(settings)
    admin.create()
    admin.close()
    small_bundle(folder / "models" / "1", FeatureLayout(("v1", "v2")))
    (folder / "models" / "current").symlink_to("1")


def test_sigterm_answers_what_is_in_flight_and_ends_with_zero(
    start: Callable[..., Process],
    broker: str,
    tmp_path: Path,
    make_settings: Callable[..., PredictorSettings],
    unique: str,
) -> None:
    provide(make_settings(PredictorSettings), tmp_path)
    process = start(broker, model_name=f"FraudDetector-{unique}")
    process.answers("/ready", 200)

    statuses: list[int] = []
    torn: list[Exception] = []

    def ask(worker: int) -> None:
        with httpx.Client(base_url=process.client.base_url, timeout=20) as client:
            n = 0
            while True:
                try:
                    statuses.append(
                        client.post(
                            "/predict", json={"transaction_id": f"p-{unique}-{worker}-{n}", "amount": 5}
                        ).status_code
                    )
                except httpx.ConnectError:
                    return
                except httpx.TransportError as error:
                    torn.append(error)
                    return
                n += 1

    with ThreadPoolExecutor(3) as pool:
        workers = [pool.submit(ask, n) for n in range(3)]
        deadline = time.monotonic() + DEADLINE_S
        while len(statuses) < 60:
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)
        code = process.end()
        for worker in workers:
            worker.result(20)

    assert code == 0, process.output()
    assert set(statuses) == {200}
    assert '"process.stopped"' in process.output()
    assert "Traceback" not in process.output()


def test_thirty_two_requests_held_open_over_a_sigterm_are_answered(
    start: Callable[..., Process],
    broker: str,
    tmp_path: Path,
    make_settings: Callable[..., PredictorSettings],
    unique: str,
) -> None:
    settings = make_settings(PredictorSettings)
    provide(settings, tmp_path)
    process = start(broker, model_name=f"FraudDetector-{unique}")
    process.answers("/ready", 200)
    port = int(process.client.base_url.port or 0)
    held = [HeldOpen(port, "/predict", {"transaction_id": f"held-{n}-{unique}", "amount": 5}) for n in range(32)]
    in_flight = '\ncentinela_requests_in_flight{service="gateway"} 32.0'
    until(lambda: in_flight in process.client.get("/metrics").text, "every request is being served")

    process.popen.send_signal(signal.SIGTERM)
    until(lambda: not process.listens(), "no new connection is taken")
    answers = [request.finish() for request in held]

    assert [answer.split("\r\n", 1)[0] for answer in answers] == ["HTTP/1.1 200 OK"] * 32
    assert process.popen.wait(10) == 0, process.output()
    table = open_table(settings, ["transactions"])
    try:
        logged = [header(record.headers, "ce_id") for record in table.read_to_end(20)]
    finally:
        table.close()
    assert sorted(i for i in logged if i and i.endswith(unique)) == sorted(f"held-{n}-{unique}" for n in range(32))


def test_with_kafka_and_registry_away_it_lives_serves_its_disk_and_says_what_it_waits_for(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    small_bundle(tmp_path / "models" / "1", FeatureLayout(("v1", "v2")))
    (tmp_path / "models" / "current").symlink_to("1")
    process = start(NOBODY)
    health = process.answers("/health", 200).json()
    assert (health["status"], health["model_loaded"]) == ("healthy", True)
    assert process.client.get("/model").json()["champion"]["version"] == "1"
    assert {"transactions", "terminals", "verdicts"} <= set(process.client.get("/ready").json()["waiting_for"])
    refused = process.client.post("/predict", json={"amount": 1})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert process.end() == 0, process.output()


def test_the_stream_lives_with_kafka_away_says_so_and_ends_with_zero(start: Callable[..., Process]) -> None:
    process = start(NOBODY, role="stream")
    health = process.answers("/health", 200).json()
    assert (health["status"], health["model_loaded"]) == ("healthy", False)
    assert {"kafka", "model"} <= set(process.answers("/ready", 503).json()["waiting_for"])
    assert process.client.get("/model").json() == {"champion": None, "challenger": None}
    assert process.end() == 0, process.output()


@pytest.mark.parametrize(
    ("role", "variable"), [("gateway", "CENTINELA_GATEWAY_PORT"), ("stream", "CENTINELA_PREDICTOR_PORT")]
)
def test_a_taken_port_is_one_clear_line_and_exit_two(start: Callable[..., Process], role: str, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start(NOBODY, taken.getsockname()[1], role=role)
        assert process.popen.wait(DEADLINE_S) == 2
    assert variable in process.output()
    assert "Traceback" not in process.output()


@pytest.mark.parametrize("arguments", [[], ["serve"], ["gateway", "stream"]])
def test_an_unknown_role_prints_the_usage(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "centinela_predictor", *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "usage: python -m centinela_predictor gateway|stream|feast\n")
