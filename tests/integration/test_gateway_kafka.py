"""The gateway on a real broker with a real bundle: what it answers is in the log, and a swap loses no request."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from centinela.codec import Decoder, ModelEventDecoder
from centinela.consuming.table_reader import open_table
from centinela.events import (
    ModelLoaded,
    ModelLoadRejected,
    ModelPromoted,
    TransactionReceived,
    TransactionScored,
    encode,
)
from centinela.features.layout import FeatureLayout, pack_rows, unpack_rows
from centinela.kafka.connect import producer
from centinela.kafka.headers import header
from centinela.kafka.port import Outgoing, Record
from centinela.kafka.topic_admin import TopicAdmin
from centinela.model.scorer import Scorer
from centinela_predictor.gateway.process import GatewayProcess
from centinela_predictor.settings import PredictorSettings
from tests.support.served_models import small_bundle

LAYOUT = FeatureLayout(("v1", "v2"))
DEADLINE_S = 30.0
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small models that decline on v1, under the versions 1 and 2, and a damaged 3."""
    folder = tmp_path_factory.mktemp("bundles")
    for version, depth in (("1", 2), ("2", 3)):
        small_bundle(folder / version, LAYOUT, version=version, depth=depth)
    shutil.copytree(folder / "2", folder / "3")
    (folder / "3" / "model.skops").write_bytes(b"changed")
    return folder


class FolderRegistry:
    """Versions as folders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def download(self, version: str, dest: Path) -> Path:
        return Path(shutil.copytree(self._folder / version, dest))


class Running:
    """A gateway in this process, on the run's broker."""

    def __init__(self, settings: PredictorSettings, bundles: Path) -> None:
        self.settings = settings
        self.stop = threading.Event()
        self.process = GatewayProcess(settings, self.stop, registry=FolderRegistry(bundles))
        self.process.start()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.process.port}", timeout=20)
        self._sequence = 0

    def promote(self, version: str) -> None:
        self._sequence += 1
        event = ModelPromoted(
            model_name=self.settings.model_name,
            alias="champion",
            model_version=version,
            previous_version=None,
            sequence=self._sequence,
            observed_at=datetime.now(UTC),
        )
        with_key = Outgoing("model-events", encode(event), f"{self.settings.model_name}:promoted:champion".encode())
        sender = producer(self.settings)
        sender.send(with_key).wait(10)
        sender.close()

    def serve(self, version: str) -> None:
        self.promote(version)
        eventually(
            lambda: (
                self.client.get("/ready").status_code == 200
                and self.client.get("/model").json()["champion"]["version"] == version
            )
        )

    def log(self, topic: str) -> list[Record]:
        table = open_table(self.settings, [topic])
        try:
            return table.read_to_end(20)
        finally:
            table.close()

    def in_log(self, transaction_ids: set[str]) -> dict[str, list[tuple[Record, TransactionReceived]]]:
        """The records of these transactions; found by an independent reader."""
        found: dict[str, list[tuple[Record, TransactionReceived]]] = {
            transaction_id: [] for transaction_id in transaction_ids
        }
        for record in self.log("transactions"):
            event = Decoder(TransactionReceived).decode(record.value)
            if event.transaction_id in found:
                found[event.transaction_id].append((record, event))
        return found


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        threading.Event().wait(0.05)


@pytest.fixture
def gateway(make_settings: Callable[..., PredictorSettings], bundles: Path, unique: str) -> Iterator[Running]:
    settings = make_settings(PredictorSettings, attributes=LAYOUT.attributes, model_name=f"FraudDetector-{unique}")
    admin = TopicAdmin(settings)
    admin.create()
    admin.close()
    running = Running(settings, bundles)
    yield running
    running.client.close()
    running.process.close()
    assert running.process.health.live


def test_what_is_answered_is_in_the_log_with_its_verdict(gateway: Running, bundles: Path, unique: str) -> None:
    assert gateway.client.get("/health").json()["model_loaded"] is False
    assert gateway.client.post("/predict", json={"amount": 1}).status_code == 503
    gateway.serve("1")

    body: dict[str, Any] = {
        "transaction_id": f"tx-{unique}",
        "user_id": f"u-{unique}",
        "amount": 120.0,
        "v1": 3.0,
        "v2": 0.1,
    }
    response = gateway.client.post("/predict", json=body, headers={"traceparent": TRACE, "X-Request-ID": "order-7"})
    answer = response.json()
    assert response.status_code == 200
    assert (answer["is_fraud"], answer["decision"], answer["model_version"]) == (True, "decline", "1")

    [(record, event)] = gateway.in_log({body["transaction_id"]})[body["transaction_id"]]
    assert record.key == f"u-{unique}".encode()
    assert (header(record.headers, "traceparent"), header(record.headers, "x-request-id")) == (TRACE, "order-7")
    verdict = event.verdict
    assert verdict is not None
    assert (verdict.origin, verdict.decision, verdict.score) == ("gateway", "decline", answer["fraud_probability"])
    vector = unpack_rows([verdict.features or b""], len(LAYOUT.names))
    expected = Scorer.load(bundles / "1").score(vector, FeatureLayout.parse(verdict.feature_set or ""))
    assert float(expected[0]) == answer["fraud_probability"]
    named = dict(zip(LAYOUT.names, vector[0].tolist(), strict=True))
    assert (named["amount"], named["user_count_1d"], named["v1"], named["v2"]) == (120.0, 1.0, 3.0, 0.1)

    again = gateway.client.post("/predict", json=body).json()
    assert again == answer | {"repeated": True}
    assert len(gateway.in_log({body["transaction_id"]})[body["transaction_id"]]) == 1
    loaded = [
        e
        for r in gateway.log("model-events")
        if isinstance(e := ModelEventDecoder().decode(r.value), ModelLoaded)
        and e.model_name == gateway.settings.model_name
    ]
    assert [(event.replica, event.model_version, event.sequence) for event in loaded] == [("gateway-0", "1", 1)]


def test_the_users_windows_count_what_came_back_from_the_log(gateway: Running, unique: str) -> None:
    gateway.serve("1")
    at = datetime.now(UTC) - timedelta(minutes=10)

    def counted(n: int) -> float:
        body: dict[str, Any] = {
            "transaction_id": f"w-{unique}-{n}",
            "user_id": f"w-{unique}",
            "amount": 10,
            "occurred_at": (at + timedelta(seconds=n)).isoformat(),
        }
        assert gateway.client.post("/predict", json=body).status_code == 200
        [(_, event)] = gateway.in_log({body["transaction_id"]})[body["transaction_id"]]
        eventually(lambda: gateway.process.state.seen([event]) == [True])
        assert event.verdict is not None
        return float(
            unpack_rows([event.verdict.features or b""], len(LAYOUT.names))[0, LAYOUT.names.index("user_count_1d")]
        )

    assert [counted(n) for n in range(4)] == [1.0, 2.0, 3.0, 4.0]


def test_a_verdict_of_the_stream_is_the_answer_to_a_later_request(gateway: Running, unique: str) -> None:
    gateway.serve("1")
    scored = TransactionScored(
        transaction_id=f"s-{unique}",
        occurred_at=datetime(2026, 3, 1, tzinfo=UTC),
        amount=5.0,
        decision="review",
        variant="champion",
        origin="stream",
        feature_set=LAYOUT.id,
        features=pack_rows(np.full((1, len(LAYOUT.names)), np.nan))[0],
        scored_at=datetime.now(UTC),
        score=0.3,
        threshold=0.5,
        model_version="77",
    )
    sender = producer(gateway.settings)
    sender.send(Outgoing("predictions", encode(scored), scored.transaction_id.encode())).wait(10)
    sender.close()

    eventually(lambda: gateway.process.knows(scored.transaction_id))
    answer = gateway.client.post("/predict", json={"transaction_id": scored.transaction_id, "amount": 5.0}).json()
    assert (answer["decision"], answer["model_version"], answer["repeated"]) == ("review", "77", True)
    assert gateway.in_log({scored.transaction_id})[scored.transaction_id] == []


def test_swaps_and_a_refused_bundle_under_concurrent_requests_lose_none(gateway: Running, unique: str) -> None:
    gateway.serve("1")
    stop = threading.Event()
    answers: list[tuple[str, int, str]] = []

    def ask(worker: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{gateway.process.port}", timeout=20) as client:
            n = 0
            while not stop.is_set():
                transaction_id = f"c-{unique}-{worker}-{n}"
                response = client.post(
                    "/predict", json={"transaction_id": transaction_id, "amount": 10 + n, "v1": 0.1 * (n % 40)}
                )
                answers.append((transaction_id, response.status_code, response.json().get("model_version", "")))
                n += 1

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(ask, n) for n in range(4)]
        try:
            for version in ("2", "1", "2"):
                gateway.serve(version)
            gateway.promote("3")
            eventually(
                lambda: any(
                    isinstance(event := ModelEventDecoder().decode(record.value), ModelLoadRejected)
                    and event.model_name == gateway.settings.model_name
                    for record in gateway.log("model-events")
                )
            )
            assert gateway.client.get("/model").json()["champion"]["version"] == "2"
            assert gateway.client.get("/ready").status_code == 200
        finally:
            stop.set()
        for worker in workers:
            worker.result(20)

    assert {status for _, status, _ in answers} == {200}
    assert {version for _, _, version in answers} == {"1", "2"}
    found = gateway.in_log({transaction_id for transaction_id, _, _ in answers})
    assert {
        transaction_id: [e.verdict.model_version for _, e in records if e.verdict]
        for transaction_id, records in found.items()
    } == {transaction_id: [version] for transaction_id, _, version in answers}


def test_after_a_restart_the_first_verdict_stands_and_another_payload_an_hour_later_is_a_conflict(
    gateway: Running, bundles: Path, unique: str
) -> None:
    gateway.serve("1")
    at = datetime.now(UTC) - timedelta(hours=2)
    body: dict[str, Any] = {
        "transaction_id": f"r-{unique}",
        "user_id": f"u-{unique}",
        "amount": 10.0,
        "v1": 0.3,
        "occurred_at": at.isoformat(),
    }
    first = gateway.client.post("/predict", json=body).json()
    gateway.process.close()
    again = Running(gateway.settings, bundles)
    try:
        eventually(lambda: again.client.get("/ready").status_code == 200)
        assert again.client.post("/predict", json=body).json() == first | {"repeated": True}
        others = {"occurred_at": (at + timedelta(hours=1)).isoformat(), "amount": 11.0, "v1": 0.4}
        answers = {name: again.client.post("/predict", json=body | {name: value}) for name, value in others.items()}
        assert {(answer.status_code, answer.json()["error"]) for answer in answers.values()} == {(409, "conflict")}
        assert [answer.json()["field"] for answer in answers.values()] == ["occurred_at", "amount", "attributes"]
        assert len(again.in_log({body["transaction_id"]})[body["transaction_id"]]) == 1
    finally:
        again.client.close()
        again.process.close()


def test_a_restart_serves_its_current_model_while_the_registry_is_away(gateway: Running, bundles: Path) -> None:
    gateway.serve("2")
    gateway.process.close()
    again = Running(gateway.settings, bundles / "nowhere")
    try:
        eventually(lambda: again.client.get("/ready").status_code == 200)
        assert again.client.get("/model").json()["champion"]["version"] == "2"
        assert again.client.post("/predict", json={"amount": 3.0}).json()["model_version"] == "2"
    finally:
        again.client.close()
        again.process.close()
