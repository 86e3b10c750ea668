"""Every codec that Kafka's producers offer is read by every client that reads for us; none depends on luck with what
else is installed."""

from __future__ import annotations

from importlib.metadata import requires

import pytest
from aiokafka.record.memory_records import MemoryRecords as AioRecords
from confluent_kafka import Producer  # noqa: TID251 - it is asked what librdkafka was built with
from kafka.record import MemoryRecords, MemoryRecordsBuilder  # noqa: TID251 - the decoders that our consumers use
from packaging.requirements import Requirement

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
NEED_A_LIBRARY = {"snappy", "lz4", "zstd"}
VALUES = [b'{"transaction_id": "t%d"}' % n + b" " * 5_000 for n in range(50)]


def batch(codec: str) -> bytes:
    builder = MemoryRecordsBuilder(2, CODECS[codec], 1 << 20)
    for value in VALUES:
        builder.append(1_700_000_000_000, b"k", value)
    builder.close()
    return bytes(builder.buffer())


def read(records: MemoryRecords | AioRecords) -> list[bytes]:
    values = []
    while (one := records.next_batch()) is not None:
        values += [record.value for record in one]
    return values


@pytest.mark.parametrize("codec", CODECS)
def test_kafka_python_reads_it(codec: str) -> None:
    assert read(MemoryRecords(batch(codec))) == VALUES


@pytest.mark.parametrize("codec", CODECS)
def test_the_client_under_faust_reads_it(codec: str) -> None:
    assert read(AioRecords(batch(codec))) == VALUES


def test_librdkafka_is_built_with_all_of_them() -> None:
    Producer({"builtin.features": ",".join(sorted(CODECS.keys() - {"none"})), "bootstrap.servers": "127.0.0.1:9"})


@pytest.mark.parametrize(("package", "client"), [("centinela", "kafka-python"), ("centinela-drift", "aiokafka")])
def test_a_package_declares_the_libraries_of_its_client(package: str, client: str) -> None:
    declared = [Requirement(line) for line in requires(package) or []]

    [found] = [requirement for requirement in declared if requirement.name == client]

    assert found.extras >= NEED_A_LIBRARY
