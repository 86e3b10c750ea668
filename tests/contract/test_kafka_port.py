"""One suite for the fake and both real adapters: whatever passes here may stand in for the others."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import pytest

from centinela.errors import DependencyUnavailable, InvalidRecord, ProducerFenced, TransactionAborted
from centinela.kafka.admin import TopicAdmin, TopicSpec
from centinela.kafka.confluent_adapter import ConfluentConsumer
from centinela.kafka.confluent_producers import ConfluentProducer, ConfluentTransactionalProducer
from centinela.kafka.fake import FakeBroker, FakeConsumer, FakeProducer, FakeTransactionalProducer
from centinela.kafka.kafka_python_adapter import KafkaPythonConsumer
from centinela.kafka.kafka_python_producers import KafkaPythonProducer, KafkaPythonTransactionalProducer
from centinela.kafka.limits import Limits
from centinela.kafka.partitioner import partition_of
from centinela.kafka.port import Consumer, Outgoing, Producer, Rebalance, Record, TopicPartition, TransactionalProducer
from centinela.settings import Settings

DEADLINE_S = 20.0
NOBODY = "127.0.0.1:9"
BRISK = Limits(heartbeat_s=0.2)
SHORT = Limits(request_s=0.5, transaction_s=1.0, commit_s=0.5, delivery_s=0.6, queue_s=0.2, probe_after_s=0.2)


class Kit(Protocol):
    """One client's way to make everything, on one broker; all is closed after the test."""

    def topic(self, partitions: int = 1) -> str: ...
    def consumer(self, group: str | None = None) -> Consumer: ...
    def producer(self) -> Producer: ...
    def transactional(self, transactional_id: str) -> TransactionalProducer: ...
    def away(self) -> tuple[Consumer, Producer, TransactionalProducer]: ...


class FakeKit:
    def __init__(self) -> None:
        self.broker = FakeBroker(auto_create=False)

    def topic(self, partitions: int = 1) -> str:
        name = f"t-{uuid.uuid4().hex[:8]}"
        self.broker.create(name, partitions)
        return name

    def consumer(self, group: str | None = None) -> Consumer:
        return FakeConsumer(self.broker, group)

    def producer(self) -> Producer:
        return FakeProducer(self.broker)

    def transactional(self, transactional_id: str) -> TransactionalProducer:
        return FakeTransactionalProducer(self.broker, transactional_id)

    def away(self) -> tuple[Consumer, Producer, TransactionalProducer]:
        self.broker.away = True
        return self.consumer("g"), self.producer(), self.transactional("t")


class RealKit:
    """Plain producer and administration serve all tests, the rest is each test's own."""

    def __init__(self, servers: str, consumer: Callable[..., Consumer], producer: Callable[..., Producer],
                 transactional: Callable[..., TransactionalProducer]) -> None:
        self._servers, self._consumer, self._producer, self._transactional = servers, consumer, producer, transactional
        self._admin = TopicAdmin(Settings(kafka_bootstrap_servers=servers))
        self._shared = producer(servers)
        self._made: list[Any] = []

    def topic(self, partitions: int = 1) -> str:
        name = f"t-{uuid.uuid4().hex[:8]}"
        self._admin.create([TopicSpec(name, partitions, 1, {})])
        return name

    def consumer(self, group: str | None = None) -> Consumer:
        return self._keep(self._consumer(self._servers, group, limits=BRISK))

    def producer(self) -> Producer:
        return self._shared

    def transactional(self, transactional_id: str) -> TransactionalProducer:
        return self._keep(self._transactional(self._servers, transactional_id))

    def away(self) -> tuple[Consumer, Producer, TransactionalProducer]:
        return (self._keep(self._consumer(NOBODY, "g", limits=SHORT)), self._keep(self._producer(NOBODY, limits=SHORT)),
                self._keep(self._transactional(NOBODY, "t", limits=SHORT)))

    def after_test(self) -> None:
        while self._made:
            self._made.pop().close()

    def close(self) -> None:
        self._shared.close()
        self._admin.close()

    def _keep(self, made: Any) -> Any:
        self._made.append(made)
        return made


@pytest.fixture(scope="module", params=["fake", "kafka-python", "confluent"])
def client(request: pytest.FixtureRequest) -> Iterator[RealKit | None]:
    if request.param == "fake":
        yield None
        return
    servers = request.getfixturevalue("broker")
    if request.param == "kafka-python":
        real = RealKit(servers, KafkaPythonConsumer, KafkaPythonProducer, KafkaPythonTransactionalProducer)
    else:
        real = RealKit(servers, ConfluentConsumer, ConfluentProducer, ConfluentTransactionalProducer)
    yield real
    real.close()


@pytest.fixture
def kit(client: RealKit | None) -> Iterator[Kit]:
    if client is None:
        yield FakeKit()
        return
    yield client
    client.after_test()


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


def test_a_partition_is_read_in_the_order_it_was_written(kit: Kit) -> None:
    topic = kit.topic()
    write(kit, *(Outgoing(topic, b"%d" % n, b"k") for n in range(50)))

    records = read_to_end(reader(kit, topic), topic)

    assert values(records) == [b"%d" % n for n in range(50)]
    assert [r.offset for r in records] == list(range(50))


def test_key_value_and_headers_come_back_byte_for_byte(kit: Kit) -> None:
    topic = kit.topic()
    write(kit, Outgoing(topic, b"\x00\xff", b"\xfe", (("a", b"\x01"), ("a", b""), ("b", b"2"))), Outgoing(topic, None, b"gone"))

    first, second = read_to_end(reader(kit, topic), topic)

    assert (first.key, first.value, first.headers) == (b"\xfe", b"\x00\xff", (("a", b"\x01"), ("a", b""), ("b", b"2")))
    assert (second.key, second.value, second.headers) == (b"gone", None, ())
    assert first.timestamp_ms > 1_600_000_000_000


def test_every_client_sends_a_key_to_the_same_partition(kit: Kit) -> None:
    topic = kit.topic(partitions=7)
    keys = [b"user-%d" % n for n in range(40)] + [b"", "ñandú".encode(), b"abc"]
    write(kit, *(Outgoing(topic, key, key) for key in keys))

    records = read_to_end(reader(kit, topic), topic)

    assert {r.value: r.partition for r in records} == {key: partition_of(key, 7) for key in keys}


def test_a_named_partition_wins_over_the_key(kit: Kit) -> None:
    topic = kit.topic(partitions=3)
    write(kit, *(Outgoing(topic, b"%d" % n, b"same", partition=n) for n in range(3)))

    assert sorted((r.partition, r.value) for r in read_to_end(reader(kit, topic), topic)) == [(0, b"0"), (1, b"1"), (2, b"2")]


def test_an_acknowledged_send_can_be_read(kit: Kit) -> None:
    topic = kit.topic()

    kit.producer().send(Outgoing(topic, b"v")).wait(DEADLINE_S)

    assert values(read_to_end(reader(kit, topic), topic)) == [b"v"]


def test_a_transaction_is_seen_whole_once_it_is_committed(kit: Kit) -> None:
    topic = kit.topic(partitions=2)
    producer, consumer = kit.transactional(group_id()), reader(kit, topic)
    producer.init()
    producer.begin()
    producer.send_all([Outgoing(topic, b"a", partition=0), Outgoing(topic, b"b", partition=1)])
    before = read_to_end(consumer, topic)

    producer.commit({}, consumer)

    assert values(before) == []
    assert sorted(values(poll_some(consumer, 2))) == [b"a", b"b"]


def test_an_aborted_transaction_is_never_seen_and_the_reader_gets_past_it(kit: Kit) -> None:
    topic = kit.topic()
    producer, consumer = kit.transactional(group_id()), reader(kit, topic)
    partition = TopicPartition(topic, 0)
    producer.init()
    producer.begin()
    producer.send_all([Outgoing(topic, b"dropped")])
    producer.abort()
    producer.begin()
    producer.send_all([Outgoing(topic, b"kept")])
    producer.commit({}, consumer)

    assert values(poll_some(consumer, 1)) == [b"kept"]
    assert read_to_end(consumer, topic) == []
    assert consumer.position(partition) >= consumer.end_offsets([partition])[partition] > 1


def test_the_end_stands_still_behind_an_open_transaction(kit: Kit) -> None:
    topic = kit.topic()
    partition = TopicPartition(topic, 0)
    write(kit, Outgoing(topic, b"plain"))
    producer, consumer = kit.transactional(group_id()), reader(kit, topic)
    producer.init()
    producer.begin()
    producer.send_all([Outgoing(topic, b"open")])
    written = 1

    def end_after_another_write() -> int:
        write(kit, Outgoing(topic, b"plain"))
        return consumer.end_offsets([partition])[partition]

    deadline = time.monotonic() + DEADLINE_S
    while (end := end_after_another_write()) > written:
        written += 1
        assert time.monotonic() < deadline, "the end never stood still"

    assert end == written
    assert consumer.beginning_offsets([partition]) == {partition: 0}
    assert values(read_to_end(consumer, topic)) == [b"plain"] * written
    producer.abort()
    assert values(poll_some(consumer, 1)) == [b"plain"]


def test_offsets_are_committed_with_the_transaction(kit: Kit) -> None:
    source, sink, group = kit.topic(), kit.topic(), group_id()
    partition = TopicPartition(source, 0)
    write(kit, *(Outgoing(source, b"%d" % n) for n in range(4)))
    consumer, producer = joined(kit, source, group), kit.transactional(group)
    poll_some(consumer, 4)
    producer.init()
    nothing = consumer.committed([partition])

    producer.begin()
    producer.send_all([Outgoing(sink, b"out")])
    producer.commit({partition: 3}, consumer)

    assert nothing == {partition: None}
    assert consumer.committed([partition]) == {partition: 3}
    consumer.close()
    assert values(poll_some(joined(kit, source, group), 1)) == [b"3"]


def test_an_aborted_transaction_leaves_the_offsets(kit: Kit) -> None:
    source, group = kit.topic(), group_id()
    partition = TopicPartition(source, 0)
    write(kit, Outgoing(source, b"0"))
    consumer, producer = joined(kit, source, group), kit.transactional(group)
    producer.init()
    producer.begin()
    producer.send_all([Outgoing(kit.topic(), b"out")])
    producer.abort()

    assert consumer.committed([partition]) == {partition: None}


def test_a_second_producer_of_the_same_id_fences_the_first(kit: Kit) -> None:
    topic, transactional_id = kit.topic(), group_id()
    first, second, consumer = kit.transactional(transactional_id), kit.transactional(transactional_id), reader(kit, topic)
    first.init()
    first.begin()
    first.send_all([Outgoing(topic, b"zombie")])
    second.init()

    with pytest.raises(ProducerFenced):
        first.commit({}, consumer)
    with pytest.raises(ProducerFenced):
        first.begin()
    second.begin()
    second.send_all([Outgoing(topic, b"owner")])
    second.commit({}, consumer)
    assert values(poll_some(consumer, 1)) == [b"owner"]
    assert read_to_end(consumer, topic) == []


def test_offsets_of_partitions_that_are_not_assigned_are_refused(kit: Kit) -> None:
    source, sink, group = kit.topic(), kit.topic(), group_id()
    partition = TopicPartition(source, 0)
    write(kit, Outgoing(source, b"0"))
    outsider, producer = kit.consumer(group), kit.transactional(group)
    outsider.subscribe([source])
    producer.init()
    producer.begin()
    producer.send_all([Outgoing(sink, b"out")])

    with pytest.raises(TransactionAborted):
        producer.commit({partition: 1}, outsider)
    with pytest.raises(TransactionAborted):
        outsider.commit({partition: 1})

    producer.abort()
    assert read_to_end(reader(kit, sink), sink) == []
    assert outsider.committed([partition]) == {partition: None}


def test_a_producer_goes_on_after_an_abort(kit: Kit) -> None:
    topic = kit.topic()
    producer, consumer = kit.transactional(group_id()), reader(kit, topic)
    producer.init()
    producer.begin()
    producer.abort()
    producer.abort()
    producer.begin()
    producer.send_all([Outgoing(topic, b"next")])
    producer.commit({}, consumer)

    assert values(poll_some(consumer, 1)) == [b"next"]


def test_nothing_of_a_new_partition_is_read_before_its_assignment_is_taken(kit: Kit) -> None:
    topic = kit.topic(partitions=2)
    write(kit, *(Outgoing(topic, b"%d" % n, partition=n % 2) for n in range(20)))
    consumer = kit.consumer(group_id())
    consumer.subscribe([topic])
    deadline = time.monotonic() + DEADLINE_S
    untaken: list[Record] = []
    while (change := consumer.take_rebalance()) is None:
        assert time.monotonic() < deadline
        untaken += consumer.poll(0.1, 100)

    assert untaken == []
    assert change.assigned == consumer.partitions_of(topic) == consumer.assignment()
    assert consumer.take_rebalance() is None
    assert len(poll_some(consumer, 20)) == 20


def test_a_second_member_gets_its_share_and_the_first_is_told(kit: Kit) -> None:
    topic, group = kit.topic(partitions=4), group_id()
    first = joined(kit, topic, group)
    second = kit.consumer(group)
    second.subscribe([topic])

    seen = take(first, second, until=lambda seen: len(seen[1].assigned) == 2 and bool(seen[0].revoked))

    assert seen[0].revoked == seen[1].assigned
    assert first.assignment() | second.assignment() == first.partitions_of(topic)
    assert not first.assignment() & second.assignment()


def test_a_member_that_leaves_hands_its_partitions_over(kit: Kit) -> None:
    topic, group = kit.topic(partitions=2), group_id()
    first = joined(kit, topic, group)
    second = kit.consumer(group)
    second.subscribe([topic])
    take(first, second, until=lambda seen: bool(seen[1].assigned))
    own = second.assignment()

    first.close()

    take(second, until=lambda seen: own | seen[0].assigned == second.partitions_of(topic))
    write(kit, *(Outgoing(topic, b"v", partition=n) for n in range(2)))
    assert len(poll_some(second, 2)) == 2


def test_reading_goes_on_where_it_was_sent(kit: Kit) -> None:
    topic = kit.topic()
    partition = TopicPartition(topic, 0)
    write(kit, *(Outgoing(topic, b"%d" % n) for n in range(10)))
    consumer = joined(kit, topic, group_id())
    consumer.seek(partition, 7)
    late = poll_some(consumer, 3)
    consumer.seek(partition, 2)

    assert values(late) == [b"7", b"8", b"9"]
    assert values(poll_some(consumer, 2)) == [b"2", b"3"]
    assert consumer.position(partition) == 4


def test_an_assigned_partition_can_be_sought_before_the_first_read(kit: Kit) -> None:
    topic = kit.topic()
    write(kit, *(Outgoing(topic, b"%d" % n) for n in range(5)))
    consumer = reader(kit, topic)
    consumer.seek(TopicPartition(topic, 0), 4)

    assert values(poll_some(consumer, 1)) == [b"4"]


def test_a_paused_partition_delivers_nothing_until_it_is_resumed(kit: Kit) -> None:
    topic = kit.topic(partitions=2)
    quiet, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    consumer = joined(kit, topic, group_id())
    if not consumer.supports_pause:
        with pytest.raises(NotImplementedError):
            consumer.pause([quiet])
        return
    consumer.pause([quiet])
    write(kit, *(Outgoing(topic, b"%d" % n, partition=n) for n in range(2)))
    heard = poll_some(consumer, 1)
    still_nothing = consumer.poll(0.3, 10)
    consumer.resume([quiet])

    assert [TopicPartition(r.topic, r.partition) for r in heard] == [other]
    assert still_nothing == []
    assert values(poll_some(consumer, 1)) == [b"0"]


def test_a_plain_commit_is_where_the_next_member_begins(kit: Kit) -> None:
    topic, group = kit.topic(), group_id()
    partition = TopicPartition(topic, 0)
    write(kit, *(Outgoing(topic, b"%d" % n) for n in range(3)))
    consumer = joined(kit, topic, group)
    poll_some(consumer, 3)
    consumer.commit({partition: 2})
    consumer.close()

    successor = joined(kit, topic, group)

    assert successor.committed([partition]) == {partition: 2}
    assert values(poll_some(successor, 1)) == [b"2"]


def test_a_record_past_the_limit_is_refused_and_the_producer_goes_on(kit: Kit) -> None:
    topic = kit.topic()
    producer = kit.producer()

    with pytest.raises(InvalidRecord) as refused:
        producer.send(Outgoing(topic, b"x" * 2_000_000)).wait(DEADLINE_S)

    assert refused.value.reason == "too_large"
    producer.send(Outgoing(topic, b"small")).wait(DEADLINE_S)
    assert values(read_to_end(reader(kit, topic), topic)) == [b"small"]


def test_a_topic_that_does_not_exist_has_no_partitions(kit: Kit) -> None:
    assert kit.consumer().partitions_of(f"missing-{uuid.uuid4().hex}") == frozenset()


def test_brokers_that_are_away_are_reported_in_bounded_time(kit: Kit) -> None:
    consumer, producer, transactional = kit.away()
    consumer.subscribe(["t"])

    def poll_until_told() -> None:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            consumer.poll(0.1, 10)

    for call in (
        lambda: consumer.partitions_of("t"), poll_until_told, lambda: consumer.committed([TopicPartition("t", 0)]),
        lambda: producer.send(Outgoing("t", b"v")).wait(1.0), transactional.init, transactional.abort,
    ):
        with pytest.raises(DependencyUnavailable):
            call()
    consumer.close()
    transactional.close()
    producer.close()
