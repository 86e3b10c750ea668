"""A header whose name is not UTF-8 comes as ``UNREADABLE`` with its value, at every client that reads for us."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

import pytest
from aiokafka.consumer import fetcher
from confluent_kafka import Producer  # noqa: TID251 - has the only broker that needs no process
from kafka.record import MemoryRecords  # noqa: TID251 - the decoder that our consumer uses

from centinela.kafka.confluent.consumer import ConfluentConsumer
from centinela.kafka.header_names import UNREADABLE
from centinela.kafka.kafka_python.records import read_any_header_name as by_kafka_python
from centinela.kafka.port import Record, TopicPartition
from centinela_drift.records import read_any_header_name as by_aiokafka
from tests.support.raw_headers import RawName, batch

Sent = Sequence[tuple[str, bytes | None]]
ROWS: dict[str, tuple[Sent, Sent]] = {
    "not UTF-8": ([(RawName(b"a\xff"), b"1")], [(UNREADABLE, b"1")]),
    "not UTF-8, no value": ([(RawName(b"\x80"), None)], [(UNREADABLE, None)]),
    "among others": (
        [("a", b"\xff"), (RawName(b"\xc3"), b"2"), ("b", None), (RawName(b"\xed\xa0\x80"), b""), ("ñ", b"5")],
        [("a", b"\xff"), (UNREADABLE, b"2"), ("b", None), (UNREADABLE, b""), ("ñ", b"5")],
    ),
    "looks like a missing one": ([("<NULL>", b"1"), (RawName(b"\xff"), b"2")], [("<NULL>", b"1"), (UNREADABLE, b"2")]),
    "empty": ([("", b"1")], [("", b"1")]),
    "thousands": ([(f"h{n}", b"v") for n in range(5_000)],) * 2,
}
CODECS = {"none": 0, "gzip": 1, "zstd": 4}


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> tuple[Sent, Sent]:
    return ROWS[request.param]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("client", ["kafka-python", "aiokafka"])
def test_a_decoder_reads_it_and_its_neighbours(row: tuple[Sent, Sent], client: str, codec: str) -> None:
    by_kafka_python()
    by_aiokafka()
    sent, expected = row
    data = batch([("n", b"0")], sent, [("n", b"2")], codec=CODECS[codec])

    records = MemoryRecords(data) if client == "kafka-python" else fetcher.MemoryRecords(data)

    found: list[tuple[bytes | None, Sent]] = []
    while records.has_next():
        one = records.next_batch()
        assert one.validate_crc()
        found += [(record.value, list(record.headers)) for record in one]
    assert found == [(b"0", [("n", b"0")]), (b"1", list(expected)), (b"2", [("n", b"2")])]


def test_librdkafka_gives_it(row: tuple[Sent, Sent]) -> None:
    sent, expected = row
    mock = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "librdkafka's own", "log_level": 0})
    [broker] = mock.list_topics("t", timeout=20).brokers.values()
    write("t", batch([("n", b"0")], sent, [("n", b"2")]), broker.host, broker.port)
    consumer = ConfluentConsumer(f"{broker.host}:{broker.port}", None)
    consumer.assign([TopicPartition("t", 0)])

    found: list[Record] = []
    while len(found) < 3:
        found += consumer.poll(20, 1)

    assert [(record.value, list(record.headers)) for record in found] == [
        (b"0", [("n", b"0")]),
        (b"1", list(expected)),
        (b"2", [("n", b"2")]),
    ]
    consumer.close()


def write(topic: str, records: bytes, host: str, port: int) -> None:
    """A produce request, version 3, with *records* for partition 0."""
    name = topic.encode()
    request = b"".join(
        [
            struct.pack(">hhihhhii", 0, 3, 1, -1, -1, 1, 5_000, 1),
            struct.pack(">h", len(name)) + name,
            struct.pack(">iii", 1, 0, len(records)) + records,
        ]
    )
    with socket.create_connection((host, port), timeout=20) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        assert connection.recv(1_000)
