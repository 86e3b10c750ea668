"""Kafka killed under requests, the gateway killed meanwhile: what was answered is the verdict, once, when all are
back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from centinela.codec import Decoder
from centinela.consuming.table_reader import open_table
from centinela.events import TransactionScored
from centinela.features.layout import FeatureLayout
from centinela.kafka.topic_admin import TopicAdmin
from centinela.settings import Settings
from centinela_local.processes.ports import free_port
from centinela_local.testing.temporary_kafka import TemporaryBroker
from tests.support.predictor_process import PredictorProcess
from tests.support.served_models import small_bundle
from tests.support.waiting import until

MODEL = "FraudDetector"


class Clients:
    """Clients that ask some twenty times a second, and again for the same transaction until they have an answer.

    ``answers``: the first answer to each transaction, in the order of their coming. ``others``: later answers that
    differ.
    """

    def __init__(self, port: int, count: int) -> None:
        self._url = f"http://127.0.0.1:{port}/predict"
        self.answers: dict[str, dict[str, Any]] = {}
        self.statuses: set[int] = set()
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(count)
        self._workers: list[Future[None]] = [self._pool.submit(self._ask, worker) for worker in range(count)]

    def _ask(self, worker: int) -> None:
        n = 0
        with httpx.Client(timeout=20) as client:
            while not self._stop.is_set():
                body = payload(f"o-{worker}-{n}", worker, n)
                while (answer := self._try(client, body)) is None:
                    self._stop.wait(0.05)
                self.answers[body["transaction_id"]] = answer
                n += 1
                self._stop.wait(0.05)

    def _try(self, client: httpx.Client, body: dict[str, Any]) -> dict[str, Any] | None:
        try:
            response = client.post(self._url, json=body)
        except httpx.TransportError:
            return None
        self.statuses.add(response.status_code)
        return response.json() if response.status_code == 200 else None

    def go_on(self, count: int, what: str) -> None:
        """Wait for *count* more answers."""
        before = len(self.answers)
        until(lambda: len(self.answers) >= before + count, what)

    def end(self) -> None:
        """Let everybody have an answer, and stop."""
        self._stop.set()
        for worker in self._workers:
            worker.result(60)
        self._pool.shutdown()


def payload(transaction_id: str, worker: int, n: int) -> dict[str, Any]:
    return {
        "transaction_id": transaction_id,
        "user_id": f"u-{worker % 3}",
        "terminal_id": f"t-{n % 5}",
        "amount": 10 + n,
        "v1": 0.1 * (n % 40),
        "v2": 0.5,
    }


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[TemporaryBroker]:
    (tmp_path / "kafka").mkdir()
    broker = TemporaryBroker(tmp_path / "kafka")
    yield broker
    broker.stop()


@pytest.fixture
def processes() -> Iterator[list[PredictorProcess]]:
    started: list[PredictorProcess] = []
    yield started
    for process in started:
        process.clean_up()


def test_kafka_and_the_gateway_killed_under_requests_leave_each_answered_verdict_once(
    kafka: TemporaryBroker, processes: list[PredictorProcess], tmp_path: Path
) -> None:
    port, stream_port = free_port(), free_port()

    def start(role: str) -> PredictorProcess:
        processes.append(
            PredictorProcess(tmp_path, kafka.bootstrap_servers, port if role == "gateway" else stream_port, MODEL, role)
        )
        return processes[-1]

    settings = Settings(kafka_bootstrap_servers=kafka.bootstrap_servers)
    kafka.start()
    admin = TopicAdmin(settings)
    admin.create()
    admin.close()
    small_bundle(tmp_path / "models" / "1", FeatureLayout(("v1", "v2")))
    (tmp_path / "models" / "current").symlink_to("1")
    streams, gateway = [start("stream")], start("gateway")
    gateway.answers("/ready", 200)
    clients = Clients(port, 6)
    clients.go_on(60, "answers with Kafka")

    kafka.stop()
    clients.go_on(120, "answers without Kafka")
    degraded = gateway.answers("/ready", 200).json()
    assert {"kafka", "outbox"} <= degraded["degraded"].keys()
    in_the_outage = list(clients.answers)[-1]

    gateway.kill()
    gateway = start("gateway")
    until(gateway.listens, "the gateway is back, without Kafka")
    assert {"transactions", "verdicts"} <= gateway.answers("/ready", 503).json()["waiting_for"].keys()
    worker, n = (int(part) for part in in_the_outage.split("-")[1:])
    again = gateway.client.post("/predict", json=payload(in_the_outage, worker, n))
    assert (again.status_code, again.json()) == (200, clients.answers[in_the_outage] | {"repeated": True})
    other = gateway.client.post("/predict", json=payload(in_the_outage, worker, n) | {"amount": 9_999})
    assert (other.status_code, other.json()["error"], other.json()["field"]) == (409, "conflict", "amount")
    new = gateway.client.post("/predict", json=payload("never-asked", 0, 0))
    assert (new.status_code, new.json()["error"]) == (503, "not_ready")

    kafka.start()
    gateway.answers("/ready", 200)
    clients.go_on(60, "answers after all are back")
    clients.end()
    until(
        lambda: "\ncentinela_gateway_outbox_records 0.0" in gateway.client.get("/metrics").text, "the outbox is empty"
    )

    def verdicts() -> dict[str, list[TransactionScored]]:
        table = open_table(settings, ["predictions"])
        found: dict[str, list[TransactionScored]] = {}
        for record in table.read_to_end(20):
            event = Decoder(TransactionScored).decode(record.value)
            found.setdefault(event.transaction_id, []).append(event)
        table.close()
        return found

    def arrived() -> bool:
        if (
            streams[-1].popen.poll() is not None
        ):  # fenced by its own earlier self when the broker came back: its supervisor's part
            streams.append(start("stream"))
        return verdicts().keys() >= clients.answers.keys()

    until(arrived, "every answered transaction is in predictions")
    found = verdicts()
    assert {transaction_id: len(events) for transaction_id, events in found.items()} == dict.fromkeys(found, 1)
    assert {i: given(events[0]) for i, events in found.items() if i in clients.answers} == {
        i: answered(a) for i, a in clients.answers.items()
    }
    assert clients.statuses <= {200, 503}
    assert "outbox.not_empty" in gateway.output(), "the second life began with what the first one kept"
    assert gateway.end() == 0
    assert streams[-1].end() == 0


def given(event: TransactionScored) -> tuple[Any, ...]:
    return event.origin, event.decision, event.score, event.model_version, event.scored_at.isoformat()


def answered(answer: dict[str, Any]) -> tuple[Any, ...]:
    scored_at = answer["scored_at"].replace("Z", "+00:00")
    return "gateway", answer["decision"], answer["fraud_probability"], answer["model_version"], scored_at
