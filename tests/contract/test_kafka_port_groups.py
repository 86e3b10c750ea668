"""The Kafka port: groups, positions, and held partitions."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from centinela.consuming.table_reader import TableReader
from centinela.errors import DependencyUnavailable
from centinela.kafka.port import Outgoing, Record, TopicPartition
from centinela.testing.clock import FixedClock
from tests.support.kafka_kit import DEADLINE_S, Kit, group_id, joined, poll_some, reader, take, values, write


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


def test_a_held_partition_delivers_nothing_until_it_is_released(kit: Kit) -> None:
    topic = kit.topic(partitions=2)
    quiet, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    consumer = joined(kit, topic, group_id())
    consumer.hold({quiet: None})
    write(kit, *(Outgoing(topic, b"%d" % n, partition=n) for n in range(2)))
    others = poll_some(consumer, 1)
    while_held = consumer.poll(0.3, 10)
    consumer.release([quiet])

    assert [TopicPartition(r.topic, r.partition) for r in others] == [other]
    assert while_held == []
    assert values(poll_some(consumer, 1)) == [b"0"]


def test_a_partition_held_at_an_offset_is_read_from_there_and_the_others_go_on(kit: Kit) -> None:
    topic = kit.topic(partitions=2)
    held, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    write(kit, *(Outgoing(topic, b"%d" % n, partition=0) for n in range(6)))
    consumer = joined(kit, topic, group_id())
    poll_some(consumer, 6)
    consumer.hold({held: 2})
    for n in range(5):
        write(kit, Outgoing(topic, b"other-%d" % n, partition=1))
        assert values(poll_some(consumer, 1)) == [b"other-%d" % n]
    consumer.hold({held: 3, other: None})
    write(kit, Outgoing(topic, b"last", partition=1))
    while_held = consumer.poll(0.3, 10)
    consumer.release([held])
    again = poll_some(consumer, 3)
    consumer.release([other])

    assert while_held == []
    assert values(again) == [b"3", b"4", b"5"]
    assert values(poll_some(consumer, 1)) == [b"last"]


def test_a_partition_that_leaves_and_comes_back_is_no_longer_held(kit: Kit) -> None:
    topic, group = kit.topic(partitions=2), group_id()
    write(kit, *(Outgoing(topic, b"%d" % n, partition=n) for n in range(2)))
    first = joined(kit, topic, group)
    poll_some(first, 2)
    first.hold(dict.fromkeys(first.assignment(), 0))
    second = kit.consumer(group)
    second.subscribe([topic])
    take(first, second, until=lambda seen: len(seen[0].revoked) == 1 and len(seen[1].assigned) == 1)
    [moved] = second.assignment()
    second.close()
    take(first, until=lambda seen: moved in seen[0].assigned)

    [record] = poll_some(first, 1)
    assert record.partition == moved.partition
    assert first.poll(0.3, 10) == []


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


def test_offsets_are_committed_for_a_group_only_while_it_has_no_members(kit: Kit) -> None:
    topic, group = kit.topic(), group_id()
    partition = TopicPartition(topic, 0)
    admin = kit.group_admin()
    assert admin.members(group) == 0
    admin.commit(group, {partition: 3})
    consumer = joined(kit, topic, group)

    assert admin.members(group) == 1
    assert consumer.committed([partition]) == {partition: 3}
    with pytest.raises(DependencyUnavailable):
        admin.commit(group, {partition: 1})
    assert consumer.committed([partition]) == {partition: 3}


def test_a_member_is_given_the_partitions_that_its_topic_gets(kit: Kit) -> None:
    topic = kit.topic(partitions=2)
    consumer = joined(kit, topic, group_id())
    write(kit, Outgoing(topic, b"0", partition=1))
    first = poll_some(consumer, 1)

    kit.grow(topic, 4)
    added = {TopicPartition(topic, 2), TopicPartition(topic, 3)}
    take(consumer, until=lambda seen: seen[0].assigned >= added)
    write(kit, Outgoing(topic, b"1", partition=3), Outgoing(topic, b"2", partition=0))

    assert values(first) == [b"0"]
    assert set(values(poll_some(consumer, 2))) == {b"1", b"2"}
    assert consumer.assignment() == consumer.partitions_of(topic)


def test_a_reader_without_a_group_reads_partitions_that_are_added_and_nothing_twice(kit: Kit) -> None:
    topic = kit.topic(partitions=2)
    write(kit, *(Outgoing(topic, b"%d" % n, partition=n % 2) for n in range(4)))
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    table = TableReader(kit.consumer(), [topic], clock=clock)
    read = table.read_to_end()

    kit.grow(topic, 4)
    write(kit, *(Outgoing(topic, b"%d" % n, partition=n % 4) for n in range(4, 8)))
    deadline = time.monotonic() + DEADLINE_S
    while len(read) < 8:
        assert time.monotonic() < deadline, f"{values(read)} of {table.partitions}"
        clock.set(clock.now() + timedelta(seconds=10))
        read += table.poll(0.2)

    assert sorted(values(read), key=str) == [b"%d" % n for n in range(8)]
    assert table.poll(0.2) == []
