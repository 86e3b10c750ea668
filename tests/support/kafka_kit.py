"""What the contract suite of the Kafka port makes and does with each client: the fake and both real adapters."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from kafka import KafkaProducer  # noqa: TID251 - writes what no producer of ours does
from kafka.admin import KafkaAdminClient  # noqa: TID251 - what an operator does

from centinela.kafka.confluent.consumer import ConfluentConsumer
from centinela.kafka.confluent.producers import ConfluentProducer, ConfluentTransactionalProducer
from centinela.kafka.connect import group_admin
from centinela.kafka.header_names import UNREADABLE
from centinela.kafka.kafka_python.consumer import KafkaPythonConsumer
from centinela.kafka.kafka_python.producers import KafkaPythonProducer, KafkaPythonTransactionalProducer
from centinela.kafka.port import Consumer, GroupAdmin, Outgoing, Producer, Rebalance, Record, TransactionalProducer
from centinela.kafka.timeouts import KafkaTimeouts
from centinela.kafka.topic_admin import TopicAdmin, TopicSpec
from centinela.settings import Settings
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeGroupAdmin, FakeProducer, FakeTransactionalProducer
from tests.support.raw_headers import RawName

_Made = TypeVar("_Made", bound="Consumer | Producer | TransactionalProducer")
DEADLINE_S = 20.0
NOBODY = "127.0.0.1:9"
BRISK = KafkaTimeouts(heartbeat_s=0.2, metadata_s=0.3)
SHORT = KafkaTimeouts(request_s=0.5, transaction_s=1.0, commit_s=0.5, delivery_s=0.6, queue_s=0.2, probe_after_s=0.2)


class Kit(Protocol):
    """One client's way to make everything, on one broker; all is closed after the test."""

    def topic(self, partitions: int = 1, codec: str = "producer") -> str: ...
    def grow(self, topic: str, partitions: int) -> None: ...
    def consumer(self, group: str | None = None) -> Consumer: ...
    def producer(self) -> Producer: ...
    def write_foreign(self, topic: str, headers: Sequence[tuple[bytes, bytes]]) -> None: ...
    def transactional(self, transactional_id: str) -> TransactionalProducer: ...
    def group_admin(self) -> GroupAdmin: ...
    def unavailable(self) -> tuple[Consumer, Producer, TransactionalProducer]: ...


class FakeKit:
    def __init__(self) -> None:
        self.broker = FakeBroker(auto_create=False)

    def topic(self, partitions: int = 1, codec: str = "producer") -> str:
        name = f"t-{uuid.uuid4().hex[:8]}"
        self.broker.create(name, partitions)
        return name

    def grow(self, topic: str, partitions: int) -> None:
        self.broker.grow(topic, partitions)
        self.broker.rebalance_all()

    def consumer(self, group: str | None = None) -> Consumer:
        return FakeConsumer(self.broker, group)

    def producer(self) -> Producer:
        return FakeProducer(self.broker)

    def write_foreign(self, topic: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.broker.append(topic, b"v", b"k", headers=tuple((readable(name), value) for name, value in headers))

    def transactional(self, transactional_id: str) -> TransactionalProducer:
        return FakeTransactionalProducer(self.broker, transactional_id)

    def group_admin(self) -> GroupAdmin:
        return FakeGroupAdmin(self.broker)

    def unavailable(self) -> tuple[Consumer, Producer, TransactionalProducer]:
        self.broker.unavailable = True
        return self.consumer("g"), self.producer(), self.transactional("t")


class RealKit:
    """Plain producer and administration serve all tests, the rest is each test's own."""

    def __init__(
        self,
        servers: str,
        consumer: Callable[..., Consumer],
        producer: Callable[..., Producer],
        transactional: Callable[..., TransactionalProducer],
    ) -> None:
        self._servers = servers
        self._consumer = consumer
        self._producer = producer
        self._transactional = transactional
        self._admin = TopicAdmin(Settings(kafka_bootstrap_servers=servers))
        self._producer = producer
        self._shared = producer(servers)
        self._made: list[Consumer | TransactionalProducer | Producer] = []

    def topic(self, partitions: int = 1, codec: str = "producer") -> str:
        name = f"t-{uuid.uuid4().hex[:8]}"
        self._admin.create([TopicSpec(name, partitions, 1, {"compression.type": codec})])
        return name

    def grow(self, topic: str, partitions: int) -> None:
        """The producer is another one after this: it would not know of the partitions for a while."""
        grow(self._servers, topic, partitions)
        deadline = time.monotonic() + DEADLINE_S
        while self._admin.identify(topic).partitions < partitions:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self._shared.close()
        self._shared = self._producer(self._servers)

    def consumer(self, group: str | None = None) -> Consumer:
        return self._keep(self._consumer(self._servers, group, timeouts=BRISK))

    def producer(self) -> Producer:
        return self._shared

    def write_foreign(self, topic: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """A record with names of headers that are any bytes, as clients in Go write them."""
        with KafkaProducer(bootstrap_servers=self._servers) as producer:
            producer.send(topic, b"v", b"k", [(RawName(name), value) for name, value in headers]).get(DEADLINE_S)

    def transactional(self, transactional_id: str) -> TransactionalProducer:
        return self._keep(self._transactional(self._servers, transactional_id))

    def group_admin(self) -> GroupAdmin:
        return group_admin(Settings(kafka_bootstrap_servers=self._servers))

    def unavailable(self) -> tuple[Consumer, Producer, TransactionalProducer]:
        return (
            self._keep(self._consumer(NOBODY, "g", timeouts=SHORT)),
            self._keep(self._producer(NOBODY, timeouts=SHORT)),
            self._keep(self._transactional(NOBODY, "t", timeouts=SHORT)),
        )

    def after_test(self) -> None:
        while self._made:
            self._made.pop().close()

    def close(self) -> None:
        self._shared.close()
        self._admin.close()

    def _keep(self, made: _Made) -> _Made:
        self._made.append(made)
        return made


def readable(name: bytes) -> str:
    """The name of a header as the port gives it."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return UNREADABLE


def grow(servers: str, topic: str, partitions: int) -> None:
    """Give *topic* more partitions."""
    admin = KafkaAdminClient(bootstrap_servers=servers)
    try:
        admin.create_partitions({topic: partitions})
    finally:
        admin.close()


def kit_of(client: str, servers: str) -> RealKit:
    """The kit of a real client."""
    if client == "kafka-python":
        return RealKit(servers, KafkaPythonConsumer, KafkaPythonProducer, KafkaPythonTransactionalProducer)
    return RealKit(servers, ConfluentConsumer, ConfluentProducer, ConfluentTransactionalProducer)


def send(producer: Producer, *records: Outgoing) -> None:
    for record in records:
        producer.send(record)
    producer.flush(DEADLINE_S)


def write(kit: Kit, *records: Outgoing) -> None:
    send(kit.producer(), *records)


def group_id() -> str:
    return f"g-{uuid.uuid4().hex[:8]}"


def reader(kit: Kit, topic: str) -> Consumer:
    consumer = kit.consumer()
    consumer.assign(consumer.partitions_of(topic))
    return consumer


def read_to_end(consumer: Consumer, topic: str) -> list[Record]:
    """Everything a read_committed reader sees up to the end as it is now."""
    partitions = consumer.partitions_of(topic)
    ends = consumer.end_offsets(partitions)
    records: list[Record] = []
    deadline = time.monotonic() + DEADLINE_S
    while any(consumer.position(p) < ends[p] for p in partitions):
        assert time.monotonic() < deadline, f"stuck before the end {ends}"
        records += consumer.poll(0.2, 100)
    return records


def values(records: Sequence[Record]) -> list[bytes | None]:
    return [record.value for record in records]


def take(*consumers: Consumer, until: Callable[[list[Rebalance]], bool]) -> list[Rebalance]:
    """Poll all *consumers* in turn, collecting what each one's assignment changed by, until it suffices."""
    merged = [Rebalance() for _ in consumers]
    deadline = time.monotonic() + DEADLINE_S
    while not until(merged):
        assert time.monotonic() < deadline, f"no such assignment: {merged}"
        for n, consumer in enumerate(consumers):
            consumer.poll(0.1, 10)
            if (change := consumer.take_rebalance()) is not None:
                merged[n] = Rebalance(*(before | now for before, now in zip(merged[n], change, strict=True)))
    return merged


def joined(kit: Kit, topic: str, group: str) -> Consumer:
    """A consumer that has all of *topic*."""
    consumer = kit.consumer(group)
    consumer.subscribe([topic])
    everything = consumer.partitions_of(topic)
    take(consumer, until=lambda seen: seen[0].assigned >= everything)
    return consumer


def poll_some(consumer: Consumer, count: int) -> list[Record]:
    records: list[Record] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(records) < count:
        assert time.monotonic() < deadline, f"only {len(records)} of {count} records came"
        records += consumer.poll(0.2, count - len(records))
    return records
