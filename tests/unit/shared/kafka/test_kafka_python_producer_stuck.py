"""A client of kafka-python that never settles a record does not take the process with it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from centinela.kafka.kafka_python import producers as kafka_python_producers
from centinela.kafka.kafka_python.producers import KafkaPythonProducer
from centinela.kafka.port import Outgoing
from centinela.kafka.timeouts import KafkaTimeouts
from tests.support.waiting import eventually

RECORD = Outgoing("t", b"v")


class Future:
    """Settled at once with a result, or never."""

    def __init__(self, settled: bool) -> None:
        self._settled = settled

    def add_both(self, call: Any, *arguments: Any) -> None:
        if self._settled:
            call(*arguments, "stored")

    def get(self, _timeout_s: float) -> None:
        assert self._settled


class Client:
    def __init__(self, settles: bool) -> None:
        self._settles, self.sent = settles, 0
        self.closed = threading.Event()

    def send(self, *_: object) -> Future:
        self.sent += 1
        return Future(self._settles)

    def close(self, timeout: float) -> None:
        self.closed.set()


def test_a_client_that_leaves_a_record_open_is_replaced_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = [Client(settles=False), Client(settles=True)]
    waiting = iter(clients)
    monkeypatch.setattr(kafka_python_producers, "KafkaProducer", lambda **_: next(waiting))
    producer = KafkaPythonProducer("nobody:9", timeouts=KafkaTimeouts(delivery_s=0.05))
    producer.send(RECORD)

    def replaced() -> bool:
        producer.send(RECORD)
        return clients[1].sent > 0

    assert eventually(replaced)
    producer.send(RECORD).wait(1.0)
    assert clients[0].closed.wait(10)


def test_a_client_that_settles_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = [Client(settles=True), Client(settles=True)]
    waiting = iter(clients)
    monkeypatch.setattr(kafka_python_producers, "KafkaProducer", lambda **_: next(waiting))
    producer = KafkaPythonProducer("nobody:9", timeouts=KafkaTimeouts(delivery_s=0.0))

    for _ in range(3):
        producer.send(RECORD).wait(1.0)

    assert [client.sent for client in clients] == [3, 0]
