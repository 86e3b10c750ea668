"""Gateway and stream on one log: every transaction has one verdict, whoever gave it first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from centinela.codec import Decoder
from centinela.consuming.table_reader import open_table
from centinela.events import TransactionReceived, TransactionScored, encode
from centinela.features.layout import FeatureLayout, unpack_rows
from centinela.kafka.connect import producer
from centinela.kafka.port import Outgoing
from centinela.kafka.topic_admin import TopicAdmin
from centinela_predictor.gateway.process import GatewayProcess
from centinela_predictor.settings import PredictorSettings
from centinela_predictor.stream.process import StreamProcess
from tests.support.served_models import small_bundle

LAYOUT = FeatureLayout(("v1", "v2"))
DEADLINE_S = 60.0


class NoRegistry:
    """Nothing needs downloading: both start from their disk."""

    def download(self, version: str, dest: Path) -> Path:
        raise AssertionError(f"version {version} should have come from the disk")


class Pair:
    def __init__(self, settings: PredictorSettings) -> None:
        self.settings = settings
        self.gateway_stop, self.stream_stop = threading.Event(), threading.Event()
        self.gateway = GatewayProcess(settings, self.gateway_stop, registry=NoRegistry())
        self.stream = StreamProcess(settings, self.stream_stop, registry=NoRegistry())
        self.codes: list[int] = []
        self.stream_thread = threading.Thread(target=lambda: self.codes.append(self.stream.run()))
        self.gateway.start()
        self.stream_thread.start()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.gateway.port}", timeout=20)
        self.eventually(lambda: self.gateway.health.ready and self.stream.health.ready)

    def eventually(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < deadline, (self.gateway.health.unmet(), self.stream.health.unmet())
            threading.Event().wait(0.1)

    def verdicts(self, transaction_ids: set[str]) -> dict[str, list[TransactionScored]]:
        """What an independent read_committed reader finds in ``predictions``, once there is one of each."""
        found: dict[str, list[TransactionScored]] = {}

        def read() -> bool:
            table = open_table(self.settings, ["predictions"])
            events = [Decoder(TransactionScored).decode(record.value) for record in table.read_to_end(20)]
            table.close()
            found.update(
                {
                    transaction_id: [e for e in events if e.transaction_id == transaction_id]
                    for transaction_id in transaction_ids
                }
            )
            return all(found.values())

        self.eventually(read)
        return found

    def end(self) -> None:
        self.client.close()
        self.gateway.close()
        self.stream_stop.set()
        self.stream_thread.join(30)
        assert self.codes == [0]


@pytest.fixture
def pair(make_settings: Callable[..., PredictorSettings], unique: str) -> Iterator[Pair]:
    settings = make_settings(
        PredictorSettings, attributes=LAYOUT.attributes, model_name=f"FraudDetector-{unique}", slot=unique
    )
    admin = TopicAdmin(settings)
    admin.create()
    admin.close()
    small_bundle(settings.models_dir / "1", LAYOUT)
    (settings.models_dir / "current").symlink_to("1")
    running = Pair(settings)
    yield running
    running.end()


def test_the_stream_adopts_the_gateways_verdicts_and_the_gateway_answers_with_the_streams(
    pair: Pair, unique: str
) -> None:
    answers: dict[str, Any] = {
        str(body["transaction_id"]): pair.client.post("/predict", json=body).json()
        for body in (
            {"transaction_id": f"g-{unique}-{n}", "user_id": f"u-{n % 3}-{unique}", "amount": 10 + n, "v1": 0.5 * n}
            for n in range(12)
        )
    }
    streamed = TransactionReceived(
        transaction_id=f"s-{unique}",
        occurred_at=datetime.now(UTC),
        amount=33.0,
        user_id=f"u-0-{unique}",
        attributes={"v1": 4.0},
    )
    sender = producer(pair.settings)
    sender.send(
        Outgoing("transactions", encode(streamed), streamed.user_id.encode() if streamed.user_id else None)
    ).wait(10)
    sender.close()

    found = pair.verdicts({*answers, streamed.transaction_id})
    assert {transaction_id: len(verdicts) for transaction_id, verdicts in found.items()} == dict.fromkeys(found, 1)
    for transaction_id, answer in answers.items():
        [verdict] = found[transaction_id]
        assert (verdict.origin, verdict.score, verdict.decision) == (
            "gateway",
            answer["fraud_probability"],
            answer["decision"],
        )
        assert (verdict.is_fraud, verdict.model_version, verdict.variant) == (answer["is_fraud"], "1", "champion")
    [own] = found[streamed.transaction_id]
    assert (own.origin, own.model_version, own.is_fraud) == ("stream", "1", True)

    pair.eventually(lambda: pair.gateway.knows(streamed.transaction_id))
    body = {"transaction_id": streamed.transaction_id, "user_id": streamed.user_id, "amount": 33.0, "v1": 4.0}
    again = pair.client.post("/predict", json=body).json()
    assert (again["fraud_probability"], again["repeated"]) == (own.score, True)
    assert len(pair.verdicts({streamed.transaction_id})[streamed.transaction_id]) == 1


def test_a_transaction_that_came_another_way_counts_in_the_gateways_next_answer_and_so_does_the_one_asked_about(
    pair: Pair, unique: str
) -> None:
    """The gateway promises two seconds; a loaded machine may take longer, so this waits and does not measure."""
    user = f"late-{unique}"
    now = datetime.now(UTC)
    streamed = [
        TransactionReceived(transaction_id=f"w{n}-{unique}", occurred_at=now, amount=30.0 + n, user_id=user)
        for n in range(3)
    ]
    sender = producer(pair.settings)
    for transaction in streamed:
        sender.send(Outgoing("transactions", encode(transaction), user.encode())).wait(10)
    sender.close()
    pair.eventually(lambda: all(pair.gateway.state.seen(streamed)))

    asked = pair.client.post("/predict", json={"transaction_id": f"a-{unique}", "user_id": user, "amount": 40.0}).json()

    [verdict] = pair.verdicts({asked["transaction_id"]})[asked["transaction_id"]]
    served = dict(zip(LAYOUT.names, unpack_rows([verdict.features], len(LAYOUT.names))[0].tolist(), strict=True))
    assert (served["user_count_1d"], served["user_mean_1d"]) == (4.0, (30 + 31 + 32 + 40) / 4)
