"""On a real broker, with both clients: a loop goes on where its group was under its former name."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from centinela.consuming.carry_over import carry_over
from centinela.consuming.handler import Outcome
from centinela.consuming.loop import ConsumerLoop
from centinela.consuming.options import LoopOptions
from centinela.groups import ConsumerGroup
from centinela.kafka import connect
from centinela.kafka.connect import Client
from centinela.kafka.port import Outgoing, Record
from centinela.kafka.topic_admin import TopicAdmin, TopicSpec
from centinela.liveness.health import Health
from centinela.settings import Settings

DEADLINE_S = 60.0
COUNT = 40


class Reading:
    """A loop on a thread, and what it has read."""

    def __init__(self, settings: Settings, topic: str, group: ConsumerGroup, client: Client) -> None:
        self.values: list[int] = []
        self.health = Health("kafka")
        self._stop = threading.Event()
        self._loop = ConsumerLoop(
            connect.consumer(settings, group=group.name, client=client),
            connect.transactional_producer(settings, transactional_id=group.name, client=client),
            self._read,
            topics=[topic],
            health=self.health,
            stop=self._stop,
            options=LoopOptions(batch=7, carry_over=carry_over(settings, group, client=client)),
        )
        self._thread = threading.Thread(target=self._loop.run)
        self._thread.start()

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"read {self.values}, waiting for {self.health.unmet()}"
            time.sleep(0.05)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def _read(self, records: Sequence[Record]) -> Outcome:
        self.values += [int(record.value or b"") for record in records]
        return Outcome()


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_a_group_is_renamed_without_a_loss_or_a_repetition(broker: str, unique: str, client: Client) -> None:
    settings = Settings(kafka_bootstrap_servers=broker)
    topic = f"renamed-{unique}"
    admin = TopicAdmin(settings)
    admin.create([TopicSpec(topic, 2, 1, {})])
    admin.close()
    writer = connect.producer(settings, client=client)

    def write(numbers: range) -> None:
        for n in numbers:
            writer.send(Outgoing(topic, b"%d" % n, partition=n % 2))
        writer.flush(DEADLINE_S)

    write(range(COUNT))
    old = Reading(settings, topic, ConsumerGroup(f"old-{unique}"), client)
    old.until(lambda: len(old.values) == COUNT)
    new = Reading(settings, topic, ConsumerGroup(f"centinela-{unique}", former=f"old-{unique}"), client)
    try:
        new.until(lambda: "end the processes of the earlier version" in new.health.unmet().get("kafka", ""))
        write(range(COUNT, COUNT + 2))
    finally:
        old.end()
    write(range(COUNT + 2, 2 * COUNT))
    try:
        new.until(lambda: len(old.values) + len(new.values) >= 2 * COUNT)
    finally:
        new.end()
        writer.close()

    assert sorted(old.values + new.values) == list(range(2 * COUNT))
