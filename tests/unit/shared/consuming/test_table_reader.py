"""Reading a whole topic without a group, and following it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from centinela.consuming.table_reader import GROWTH_CHECK_S, TableFollower, TableReader
from centinela.errors import DependencyUnavailable
from centinela.kafka.port import Outgoing, Record, TopicPartition
from centinela.liveness.health import Health
from centinela.liveness.progress import Patience
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeTransactionalProducer

TOPIC = "model-events"


def reader(broker: FakeBroker) -> TableReader:
    return TableReader(FakeConsumer(broker), [TOPIC])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_a_table_is_read_from_its_beginning_to_its_end_and_then_followed() -> None:
    broker = FakeBroker(partitions=2)
    for n in range(6):
        broker.append(TOPIC, b"%d" % n, partition=n % 2)
    table = reader(broker)

    first = table.read_to_end()
    quiet = table.poll(0)
    broker.append(TOPIC, b"new", partition=1)

    assert sorted(r.value or b"" for r in first) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert quiet == []
    assert [r.value for r in table.poll(0)] == [b"new"]


def test_the_end_is_reached_past_what_was_aborted() -> None:
    broker = FakeBroker()
    producer = FakeTransactionalProducer(broker)
    broker.append(TOPIC, b"kept")
    producer.begin()
    producer.send_all([Outgoing(TOPIC, b"dropped")])
    producer.abort()

    assert [r.value for r in reader(broker).read_to_end()] == [b"kept"]


def test_a_large_table_is_read_by_batches_until_the_end_that_it_had() -> None:
    broker = FakeBroker()
    for n in range(5):
        broker.append(TOPIC, b"%d" % n)
    table = TableReader(FakeConsumer(broker), [TOPIC], batch=2)
    before = table.at_end()
    batches = []
    while not table.at_end():
        batches.append(len(table.poll(0)))

    assert not before
    assert batches == [2, 2, 1]


def test_partitions_that_a_topic_is_given_later_are_read_from_their_beginning_and_nothing_twice() -> None:
    broker, clock = FakeBroker(partitions=2), FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    table = TableReader(FakeConsumer(broker), [TOPIC, "other"], clock=clock)
    for n in range(4):
        broker.append(TOPIC, b"%d" % n, partition=n % 2)
    read = table.read_to_end()
    broker.append(TOPIC, b"4", partition=0)
    broker.grow(TOPIC, 4)
    broker.append(TOPIC, b"5", partition=3)
    broker.append("other", b"6", partition=1)

    clock.set(clock.now() + timedelta(seconds=2 * GROWTH_CHECK_S))
    read += table.poll(0)
    caught_up = table.at_end()
    broker.append(TOPIC, b"7", partition=2)
    read += table.poll(0)

    assert sorted(r.value or b"" for r in read) == [b"%d" % n for n in range(8)]
    assert caught_up
    assert len(table.partitions) == 6


def test_a_topic_is_not_asked_for_its_partitions_with_every_poll() -> None:
    broker, clock = FakeBroker(), FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    table = TableReader(FakeConsumer(broker), [TOPIC], clock=clock)
    table.poll(0)
    broker.grow(TOPIC, 2)

    clock.set(clock.now() + timedelta(seconds=GROWTH_CHECK_S / 2))
    table.poll(0)

    assert len(table.partitions) == 1


def test_reading_may_begin_at_the_offset_of_a_snapshot() -> None:
    broker = FakeBroker()
    for n in range(4):
        broker.append(TOPIC, b"%d" % n)
    table = reader(broker)
    table.seek(TopicPartition(TOPIC, 0), 3)

    assert [r.value for r in table.read_to_end()] == [b"3"]


def test_a_topic_that_is_missing_is_named_with_its_remedy() -> None:
    with pytest.raises(DependencyUnavailable, match="centinela topics create"):
        reader(FakeBroker(auto_create=False)).read_to_end()


def test_a_follower_is_ready_once_it_caught_up_and_waits_out_an_outage() -> None:
    broker, health, stop = FakeBroker(), Health(), threading.Event()
    broker.append(TOPIC, b"old")
    seen: list[bytes | None] = []

    def apply(records: Sequence[Record]) -> None:
        seen.extend(r.value for r in records)

    broker.unavailable = True
    follower = TableFollower(
        lambda: reader(broker), apply, health=health, stop=stop, condition="models", poll_timeout_s=0
    )
    thread = threading.Thread(target=follower.run)
    thread.start()
    until(lambda: "kafka" in health.unmet())
    waiting = set(health.unmet())
    broker.unavailable = False
    until(lambda: health.ready)
    broker.append(TOPIC, b"new")
    until(lambda: len(seen) == 2)
    stop.set()
    thread.join(10)

    assert waiting == {"kafka", "models"}
    assert seen == [b"old", b"new"]
    assert not thread.is_alive()


def test_a_follower_that_hangs_is_not_live_until_it_goes_on() -> None:
    broker, health, stop, release = FakeBroker(), Health(), threading.Event(), threading.Event()
    broker.append(TOPIC, b"old")

    def hang(_: Sequence[Record]) -> None:
        release.wait(30)

    follower = TableFollower(
        lambda: reader(broker),
        hang,
        health=health,
        stop=stop,
        condition="models",
        poll_timeout_s=0,
        patience=Patience(0.2),
    )
    thread = threading.Thread(target=follower.run)
    thread.start()
    until(lambda: not health.live)
    reason = health.reason or ""
    release.set()
    until(lambda: health.live and health.ready)
    stop.set()
    thread.join(10)

    assert reason.startswith("follow-models is stuck: its thread has made no progress")
    assert not thread.is_alive()
