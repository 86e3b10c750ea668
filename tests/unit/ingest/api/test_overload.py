"""What the ingest API answers while it cannot accept anything: Kafka unavailable, too many requests, no time left."""

from __future__ import annotations

import threading

import pytest
from fastapi.testclient import TestClient

from centinela.clock import SystemClock
from centinela.errors import DependencyUnavailable
from centinela.kafka.port import Delivery, Outgoing
from centinela.testing.kafka import FakeBroker
from tests.support.ingest_api import GOOD, LABEL, build


def test_an_outage_of_kafka_is_answered_at_once_with_a_time_to_retry(broker: FakeBroker) -> None:
    client, service = build(broker, ingest_retry_after_s=3)
    broker.unavailable = True
    answer = client.post("/transactions", json=GOOD)
    assert (answer.status_code, answer.json()["error"], answer.headers["retry-after"]) == (
        503,
        "kafka_unavailable",
        "3",
    )
    assert client.get("/ready").status_code == 503
    assert "kafka" in client.get("/ready").json()["waiting_for"]
    assert client.get("/health").status_code == 200

    broker.unavailable = False
    service.watch.check()
    assert client.get("/ready").status_code == 200
    assert client.post("/transactions", json=GOOD).status_code == 202
    assert len(broker.records("transactions")) == 1


def test_before_kafka_was_ever_reached_nothing_is_ready_nor_sent(broker: FakeBroker) -> None:
    broker.unavailable = True
    client, _ = build(broker)
    assert client.get("/ready").status_code == 503
    assert client.post("/labels", json=LABEL).status_code == 503


def test_a_missing_topic_is_waited_for_by_name() -> None:
    broker = FakeBroker(auto_create=False)
    client, _ = build(broker)
    assert "no topic transactions" in client.get("/ready").json()["waiting_for"]["kafka"]


class Unacknowledged:
    """A producer whose broker answers when the test says so."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.waiting = threading.Semaphore(0)

    def send(self, record: Outgoing) -> Delivery:
        return self

    def wait(self, timeout_s: float) -> None:
        self.waiting.release()
        if not self.release.wait(min(timeout_s, 10)):
            raise DependencyUnavailable("no acknowledgement", dependency="kafka")

    def flush(self, timeout_s: float) -> None:
        """Nothing is queued."""

    def close(self) -> None:
        """Nothing to release."""


def test_without_an_acknowledgement_in_time_the_answer_is_503(broker: FakeBroker) -> None:
    client, _ = build(broker, Unacknowledged(), ingest_deadline_s=0.5)
    answer = client.post("/transactions", json=GOOD)
    assert (answer.status_code, answer.json()["error"]) == (503, "kafka_unavailable")


def test_more_waiting_requests_than_allowed_are_refused_rather_than_queued(broker: FakeBroker) -> None:
    producer = Unacknowledged()
    client, _ = build(broker, producer, ingest_in_flight=1)
    first: list[int] = []
    sender = threading.Thread(target=lambda: first.append(client.post("/transactions", json=GOOD).status_code))
    sender.start()
    assert producer.waiting.acquire(timeout=10)
    second = client.post("/transactions", json=GOOD)
    producer.release.set()
    sender.join(10)
    assert (second.status_code, second.json()["error"], second.headers["retry-after"], first) == (
        429,
        "overloaded",
        "1",
        [202],
    )


def test_the_time_that_a_client_allows_is_kept_and_says_nothing_about_kafka(broker: FakeBroker) -> None:
    client, _ = build(broker, Unacknowledged(), SystemClock())
    answer = client.post("/transactions", json=GOOD, headers={"X-Request-Timeout-Ms": "30"})
    assert (answer.status_code, answer.json()["error"], answer.headers["retry-after"]) == (
        504,
        "deadline_exceeded",
        "1",
    )
    assert client.get("/ready").status_code == 200


@pytest.mark.parametrize("milliseconds", ["0", "-1", "soon", "1.5", "", "\u0661"])
def test_an_invalid_timeout_is_refused_before_anything_is_sent(
    client: TestClient, broker: FakeBroker, milliseconds: str
) -> None:
    answer = client.post("/transactions", json=GOOD, headers={"X-Request-Timeout-Ms": milliseconds.encode()})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_header")
    assert broker.records("transactions") == []


class Broken(Unacknowledged):
    """A client that has failed permanently."""

    def send(self, record: Outgoing) -> Delivery:
        raise RuntimeError("the producer is lost")


def test_a_client_that_failed_for_good_ends_the_process_for_a_new_start(broker: FakeBroker) -> None:
    _, service = build(broker, Broken())
    answer = TestClient(service.app, raise_server_exceptions=False).post("/transactions", json=GOOD)
    assert answer.status_code == 500
    assert (service.health.live, service.health.reason) == (False, "RuntimeError")
