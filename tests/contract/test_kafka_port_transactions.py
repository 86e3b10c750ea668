"""The Kafka port: transactions, their offsets, and fencing."""

from __future__ import annotations

import time

import pytest

from centinela.errors import ProducerFenced, TransactionAborted
from centinela.kafka.port import Outgoing, TopicPartition
from tests.support.kafka_kit import DEADLINE_S, Kit, group_id, joined, poll_some, read_to_end, reader, values, write


def test_a_transaction_is_seen_whole_once_it_is_committed(kit: Kit) -> None:
    topic = kit.topic(partitions=2)
    producer, consumer = kit.transactional(group_id()), reader(kit, topic)
    producer.init()
    producer.begin()
    producer.send_all([Outgoing(topic, b"a", partition=0), Outgoing(topic, b"b", partition=1)])
    before = read_to_end(consumer, topic)

    producer.commit({}, consumer)

    assert values(before) == []
    assert sorted(value or b"" for value in values(poll_some(consumer, 2))) == [b"a", b"b"]


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
    first, second, consumer = (
        kit.transactional(transactional_id),
        kit.transactional(transactional_id),
        reader(kit, topic),
    )
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
