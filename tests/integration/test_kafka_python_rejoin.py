"""kafka-python's consumer rejoins when its group refuses its commits again and again."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from centinela.errors import TransactionAborted
from centinela.kafka.kafka_python.consumer import KafkaPythonConsumer
from centinela.kafka.kafka_python.producers import KafkaPythonProducer
from centinela.kafka.port import Outgoing, Rebalance, Record, TopicPartition
from centinela.kafka.topic_admin import TopicAdmin, TopicSpec
from centinela.settings import Settings

DEADLINE_S = 20.0


def test_a_member_that_its_group_has_forgotten_joins_anew(
    make_settings: Callable[..., Settings], topic_names: Callable[[str], str]
) -> None:
    settings, topic = make_settings(), topic_names("source")
    servers, partition = settings.kafka_bootstrap_servers, TopicPartition(topic, 0)
    admin, producer, consumer = TopicAdmin(settings), KafkaPythonProducer(servers), KafkaPythonConsumer(servers, topic)
    admin.create([TopicSpec(topic, 1, 1, {})])
    producer.send(Outgoing(topic, b"v")).wait(DEADLINE_S)
    consumer.subscribe([topic])
    changes: list[Rebalance] = []

    def read() -> list[Record]:
        deadline = time.monotonic() + DEADLINE_S
        while not (records := consumer.poll(0.1, 10)):
            assert time.monotonic() < deadline, f"nothing read: {changes}"
            if (change := consumer.take_rebalance()) is not None:
                changes.append(change)
        return records

    read()
    for _ in range(5):
        with pytest.raises(TransactionAborted):
            consumer.commit({TopicPartition(topic, 7): 1})
    again = read()
    consumer.commit({partition: 1})
    committed = consumer.committed([partition])
    for client in (consumer, producer, admin):
        client.close()

    assert [r.value for r in again] == [b"v"]
    assert [(c.assigned, c.lost) for c in changes] == [
        ({partition}, frozenset()),
        (frozenset(), {partition}),
        ({partition}, frozenset()),
    ]
    assert committed == {partition: 1}
