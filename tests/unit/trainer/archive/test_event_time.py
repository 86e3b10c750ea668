"""How far event time has come, and whether the stream has come as far."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from centinela.errors import DependencyUnavailable
from centinela.events import LabelReported, TransactionReceived, encode
from centinela.kafka.port import TopicPartition
from centinela.testing.kafka import FakeBroker, FakeConsumer
from centinela_trainer.commands.event_time import await_stream, event_time_reached

START = datetime(2026, 3, 1, tzinfo=UTC)
GROUP = "stream"


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def untold(warning: str) -> None:
    """No record here is far ahead of the others."""
    raise AssertionError(warning)


def transaction(at: datetime) -> bytes:
    return encode(TransactionReceived(transaction_id=f"t-{at}", occurred_at=at, amount=1))


def label(reported_at: datetime) -> bytes:
    return encode(LabelReported(transaction_id="t", is_fraud=True, occurred_at=START, reported_at=reported_at))


@pytest.fixture
def broker() -> FakeBroker:
    broker = FakeBroker()
    broker.create("transactions", 3)
    broker.create("labels", 3)
    return broker


def test_event_time_has_come_as_far_as_the_newest_of_the_last_transactions(broker: FakeBroker) -> None:
    assert event_time_reached(FakeConsumer(broker), day(30), untold) is None
    for partition, at in ((0, 1), (0, 2), (1, 5), (1, 3)):
        broker.append("transactions", transaction(day(at)), partition=partition)
    assert event_time_reached(FakeConsumer(broker), day(30), untold) == day(5)


def test_a_reported_label_takes_event_time_on(broker: FakeBroker) -> None:
    broker.append("transactions", transaction(day(1)), partition=2)
    broker.append("labels", label(day(8)), partition=1)
    assert event_time_reached(FakeConsumer(broker), day(30), untold) == day(8)


@pytest.mark.parametrize("strays", [1, 3])
def test_a_few_clocks_far_ahead_of_all_others_do_not_take_event_time_on(broker: FakeBroker, strays: int) -> None:
    """A request without a time is of now, while days of last year are replayed; a training as of now has no rows."""
    warnings: list[str] = []
    for number in range(60):
        broker.append("transactions", transaction(day(number / 100 - 300)), partition=number % 3)
    for number in range(strays):
        broker.append("transactions", transaction(day(number)), partition=number)
    assert event_time_reached(FakeConsumer(broker), day(30), warnings.append) == day(0.59 - 300)
    assert warnings == [
        f"{strays} of the last {60 + strays} records are over 30 days ahead of {day(0.59 - 300).isoformat()}"
    ]


def test_most_of_the_records_far_ahead_are_event_time(broker: FakeBroker) -> None:
    for number in range(60):
        broker.append("transactions", transaction(day(number - (365 if number < 40 else 60))), partition=0)
    assert event_time_reached(FakeConsumer(broker), day(30), untold) == day(-1)


@pytest.mark.parametrize("year", [2027, 2099, 2999, 9999])
def test_a_report_ahead_of_now_does_not_take_event_time_on(broker: FakeBroker, year: int) -> None:
    broker.append("labels", label(day(8)), partition=1)
    broker.append("labels", label(datetime(year, 1, 1, tzinfo=UTC)), partition=1)
    assert event_time_reached(FakeConsumer(broker), day(30), untold) == day(8)


@pytest.mark.parametrize("value", [b"{broken", transaction(datetime(2999, 1, 1, tzinfo=UTC))])
def test_what_is_no_transaction_does_not_count(broker: FakeBroker, value: bytes) -> None:
    broker.append("transactions", transaction(day(1)), partition=0)
    broker.append("transactions", value, partition=1)
    assert event_time_reached(FakeConsumer(broker), day(30), untold) == day(1)


def test_what_the_stream_does_not_take_in_is_counted_once_patience_ends(broker: FakeBroker) -> None:
    for number in range(4):
        broker.append("transactions", transaction(day(number)), partition=number % 2)
    assert await_stream(FakeConsumer(broker, GROUP), 0) == 4
    commit(broker, {TopicPartition("transactions", 0): 2, TopicPartition("transactions", 1): 1})
    assert await_stream(FakeConsumer(broker, GROUP), 0) == 1


def test_the_stream_is_waited_for_while_it_goes_on(broker: FakeBroker) -> None:
    broker.append("transactions", transaction(day(1)), partition=0)
    working = threading.Timer(0.05, commit, (broker, {TopicPartition("transactions", 0): 1}))
    working.start()
    assert await_stream(FakeConsumer(broker, GROUP), 30) == 0
    working.join()


def test_a_topic_that_does_not_exist_is_named() -> None:
    with pytest.raises(DependencyUnavailable, match="topic transactions does not exist"):
        await_stream(FakeConsumer(FakeBroker(auto_create=False), GROUP), 1)


def commit(broker: FakeBroker, offsets: dict[TopicPartition, int]) -> None:
    broker.group(GROUP).committed.update(offsets)
