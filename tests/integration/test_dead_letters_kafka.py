"""A record of any size that a topic holds is dead-lettered and the loop goes on, with both clients."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from centinela.codec import MAX_RECORD_BYTES
from centinela.consuming.handler import Outcome
from centinela.consuming.loop import ConsumerLoop
from centinela.consuming.options import LoopOptions
from centinela.consuming.table_reader import TableReader
from centinela.deadletters.record import DeadLetter, DeadLetterCap
from centinela.kafka import connect
from centinela.kafka.connect import Client
from centinela.kafka.port import Outgoing, Record
from centinela.kafka.timeouts import MAX_REQUEST_BYTES
from centinela.kafka.topic_admin import TopicAdmin, TopicSpec
from centinela.liveness.health import Health
from centinela.settings import Settings

DEADLINE_S = 40.0


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_records_at_the_size_limit_get_letters_that_can_be_written(
    client: Client, make_settings: Callable[..., Settings], topic_names: Callable[[str], str], unique: str
) -> None:
    settings, topic = make_settings(), topic_names("labels")
    admin = TopicAdmin(settings)
    admin.create([TopicSpec(name, 1, 1, {}) for name in (topic, f"{topic}-dlq")])
    admin.close()
    largest = MAX_REQUEST_BYTES - 500
    records = [
        Outgoing(topic, os.urandom(MAX_RECORD_BYTES), b"value at the codec's limit", (("ce_id", b"1"),)),
        Outgoing(topic, os.urandom(largest), b"value at the topic's limit"),
        Outgoing(
            topic,
            os.urandom(MAX_RECORD_BYTES),
            b"headers fill the rest",
            (("h", os.urandom(largest - MAX_RECORD_BYTES - 100)),),
        ),
        Outgoing(topic, b"{}", os.urandom(largest - 100)),
        Outgoing(topic, b"{}", b"the last"),
    ]
    producer = connect.producer(settings, client="confluent")
    for record in records:
        producer.send(record).wait(DEADLINE_S)
    producer.close()

    def refuse(records: Sequence[Record]) -> Outcome:
        return Outcome(dead_letters=[DeadLetter(record, "invalid_field", "é" * 5_000) for record in records])

    stop, deadline = threading.Event(), time.monotonic() + DEADLINE_S
    loop = ConsumerLoop(
        connect.consumer(settings, group=unique, client=client),
        connect.transactional_producer(settings, transactional_id=unique, client=client),
        refuse,
        topics=[topic],
        health=Health("kafka"),
        stop=stop,
        options=LoopOptions(cap=DeadLetterCap(max_share=1.0)),
    )
    reader = TableReader(connect.consumer(settings, group=None), [f"{topic}-dlq"])
    letters: list[Record] = []
    while len(letters) < len(records):
        assert time.monotonic() < deadline, f"{len(letters)} letters"
        loop.run_once()
        letters += reader.poll(0.05)
    stop.set()
    loop.run()
    reader.close()

    assert [dict(letter.headers)["dlq.offset"] for letter in letters] == [b"%d" % n for n in range(len(records))]
    assert (letters[0].key, letters[0].value) == (records[0].key, records[0].value)
    assert all(
        (record.value or b"").startswith(letter.value or b"-") for record, letter in zip(records, letters, strict=True)
    )
