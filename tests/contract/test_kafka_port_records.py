"""The Kafka port: records, timeouts, and brokers that do not answer."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime

import pytest

from centinela.deadletters.record import dead_letter
from centinela.errors import DependencyUnavailable, InvalidRecord
from centinela.kafka.header_names import UNREADABLE
from centinela.kafka.partitioner import partition_of
from centinela.kafka.port import Outgoing, TopicPartition
from tests.support.kafka_kit import DEADLINE_S, Kit, read_to_end, reader, values, write


def test_a_partition_is_read_in_the_order_it_was_written(kit: Kit) -> None:
    topic = kit.topic()
    write(kit, *(Outgoing(topic, b"%d" % n, b"k") for n in range(50)))

    records = read_to_end(reader(kit, topic), topic)

    assert values(records) == [b"%d" % n for n in range(50)]
    assert [r.offset for r in records] == list(range(50))


def test_key_value_and_headers_come_back_byte_for_byte(kit: Kit) -> None:
    topic = kit.topic()
    write(
        kit,
        Outgoing(topic, b"\x00\xff", b"\xfe", (("a", b"\x01"), ("a", b""), ("b", b"2"))),
        Outgoing(topic, None, b"gone"),
    )

    first, second = read_to_end(reader(kit, topic), topic)

    assert (first.key, first.value, first.headers) == (b"\xfe", b"\x00\xff", (("a", b"\x01"), ("a", b""), ("b", b"2")))
    assert (second.key, second.value, second.headers) == (b"gone", None, ())
    assert first.timestamp_ms > 1_600_000_000_000


def test_a_header_whose_name_is_not_utf8_is_read_and_its_dead_letter_written(kit: Kit) -> None:
    topic = kit.topic()
    kit.write_foreign(topic, [(b"a", b"1"), (b"\xff\xfe", b"2"), (b"", b""), (b"\xc3", b"\xff")])
    [record] = read_to_end(reader(kit, topic), topic)
    letter = dead_letter(record, "invalid", "no JSON", at=datetime.now(UTC))

    write(kit, Outgoing(topic, letter.value, letter.key, letter.headers))

    assert record.headers == (("a", b"1"), (UNREADABLE, b"2"), ("", b""), (UNREADABLE, b"\xff"))
    written = read_to_end(reader(kit, topic), topic)[1]
    assert written.headers[:4] == (("a", b"1"), (UNREADABLE, b"2"), ("", b""), (UNREADABLE, b"\xff"))


@pytest.mark.parametrize("codec", ["uncompressed", "gzip", "snappy", "lz4", "zstd"])
def test_what_a_broker_compressed_is_read_whatever_the_codec(kit: Kit, codec: str) -> None:
    """The broker compresses as Java's producers do."""
    topic = kit.topic(codec=codec)
    sent = [b"%d " % n * 5_000 for n in range(20)]
    write(kit, *(Outgoing(topic, value, b"k") for value in sent))

    assert values(read_to_end(reader(kit, topic), topic)) == sent


def test_every_client_sends_a_key_to_the_same_partition(kit: Kit) -> None:
    topic = kit.topic(partitions=7)
    keys = [b"user-%d" % n for n in range(40)] + [b"", "ñandú".encode(), b"abc"]
    write(kit, *(Outgoing(topic, key, key) for key in keys))

    records = read_to_end(reader(kit, topic), topic)

    assert {r.value: r.partition for r in records} == {key: partition_of(key, 7) for key in keys}


def test_a_named_partition_wins_over_the_key(kit: Kit) -> None:
    topic = kit.topic(partitions=3)
    write(kit, *(Outgoing(topic, b"%d" % n, b"same", partition=n) for n in range(3)))

    assert sorted((r.partition, r.value) for r in read_to_end(reader(kit, topic), topic)) == [
        (0, b"0"),
        (1, b"1"),
        (2, b"2"),
    ]


def test_an_acknowledged_send_can_be_read(kit: Kit) -> None:
    topic = kit.topic()

    kit.producer().send(Outgoing(topic, b"v")).wait(DEADLINE_S)

    assert values(read_to_end(reader(kit, topic), topic)) == [b"v"]


def test_a_record_past_the_limit_is_refused_and_the_producer_goes_on(kit: Kit) -> None:
    topic = kit.topic()
    producer = kit.producer()

    with pytest.raises(InvalidRecord) as refused:
        producer.send(Outgoing(topic, b"x" * 2_000_000)).wait(DEADLINE_S)

    assert refused.value.reason == "too_large"
    producer.send(Outgoing(topic, b"small")).wait(DEADLINE_S)
    assert values(read_to_end(reader(kit, topic), topic)) == [b"small"]


def test_a_backlog_of_one_partition_does_not_hold_up_another(kit: Kit) -> None:
    topic = kit.topic(partitions=2)
    backlog, at_most = 24_000, 10_000
    for first in range(0, backlog, 4_000):
        write(
            kit,
            *(Outgoing(topic, os.urandom(200), partition=0) for _ in range(first, min(first + 4_000, backlog))),
        )
    consumer = reader(kit, topic)
    ahead = 0
    while ahead < 200:
        ahead += len(consumer.poll(1.0, 100))

    write(kit, Outgoing(topic, b"of another", partition=1))

    waited = 0
    while b"of another" not in (found := values(consumer.poll(1.0, 100))):
        waited += len(found)
        assert waited < at_most


def test_a_topic_that_does_not_exist_has_no_partitions(kit: Kit) -> None:
    assert kit.consumer().partitions_of(f"missing-{uuid.uuid4().hex}") == frozenset()


def test_brokers_that_are_away_are_reported_in_bounded_time(kit: Kit) -> None:
    consumer, producer, transactional = kit.unavailable()
    consumer.subscribe(["t"])

    def poll_until_told() -> None:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            consumer.poll(0.1, 10)

    for call in (
        lambda: consumer.partitions_of("t"),
        poll_until_told,
        lambda: consumer.committed([TopicPartition("t", 0)]),
        lambda: producer.send(Outgoing("t", b"v")).wait(1.0),
        transactional.init,
        transactional.abort,
    ):
        with pytest.raises(DependencyUnavailable):
            call()
    consumer.close()
    transactional.close()
    producer.close()
