"""Bulk commands wait for Kafka, say so once, and refuse what makes no sense."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, date, datetime

import pytest
import typer

from centinela.errors import CentinelaError, DependencyUnavailable
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeProducer
from centinela_ingest.bulk.bulk_producer import BulkOptions, BulkProducer
from centinela_ingest.bulk.console import INTERRUPTED, await_topics, close_run, parse_number, stopping
from centinela_ingest.commands.simulate import require_past

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def waiter(clock: FixedClock, then: Callable[[], None] = lambda: None) -> Callable[[float], bool]:
    def wait(seconds: float) -> bool:
        clock.set(datetime.fromtimestamp(clock.now().timestamp() + seconds, UTC))
        then()
        return False

    return wait


def test_kafka_is_waited_for_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    broker, clock, waits = FakeBroker(), FixedClock(NOW), []
    broker.unavailable = True

    def back_later() -> None:
        waits.append(1)
        broker.unavailable = len(waits) < 3

    await_topics(FakeConsumer(broker), ["transactions"], "k:1", clock, waiter(clock, back_later), 60)
    assert capsys.readouterr().err.splitlines() == ["waiting for Kafka at k:1"]


def test_a_kafka_that_stays_unavailable_ends_the_run_before_anything_is_sent() -> None:
    broker, clock = FakeBroker(), FixedClock(NOW)
    broker.unavailable = True
    with pytest.raises(DependencyUnavailable, match="nothing was sent: Kafka at k:1 does not answer"):
        await_topics(FakeConsumer(broker), ["transactions"], "k:1", clock, waiter(clock), 5)
    assert 5 <= clock.monotonic() < 6


def test_missing_topics_are_named_with_the_command_that_makes_them() -> None:
    broker, clock = FakeBroker(auto_create=False), FixedClock(NOW)
    broker.create("transactions", 1)
    with pytest.raises(CentinelaError, match="has no topic labels: run `centinela topics create`"):
        await_topics(FakeConsumer(broker), ["transactions", "labels"], "k:1", clock, waiter(clock), 5)


@pytest.mark.parametrize(
    ("text", "suffix", "value"),
    [("500/s", "/s", 500), ("500", "/s", 500), ("1,000", "/s", 1_000), ("3600x", "x", 3_600), (None, "x", None)],
)
def test_paces_are_numbers_with_or_without_their_unit(text: str | None, suffix: str, value: float | None) -> None:
    assert parse_number(text, suffix, "--rate") == value


@pytest.mark.parametrize("text", ["0", "-5", "fast", "inf", "nan", ""])
def test_an_invalid_pace_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="not a number above 0"):
        parse_number(text, "/s", "--rate")


def test_days_in_the_future_are_refused_with_a_start_that_works() -> None:
    require_past(date(2026, 2, 1), 28, NOW)
    with pytest.raises(typer.BadParameter, match="start on 2026-01-20 or before"):
        require_past(date(2026, 2, 1), 40, NOW)
    require_past(date(2026, 1, 20), 40, NOW)


@pytest.mark.parametrize(
    ("start", "days", "advice"),
    [
        (date(1969, 12, 31), 1, "start on 1970-01-01 or later"),
        (date(1, 1, 1), 1, "start on 1970-01-01 or later"),
        (date(9999, 12, 31), 1, "start on 2026-02-28 or before"),
        (date(2025, 1, 1), 10**9, "at most 20513 days lie between 1970 and now"),
        (date(2025, 1, 1), 10**40, "at most 20513 days lie between 1970 and now"),
    ],
)
def test_days_that_arithmetic_cannot_hold_are_refused(start: date, days: int, advice: str) -> None:
    with pytest.raises(typer.BadParameter, match=advice):
        require_past(start, days, NOW)


def test_the_first_signal_asks_the_run_to_stop_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopping() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupted_run_says_so_and_exits_130(capsys: pytest.CaptureFixture[str]) -> None:
    bulk = BulkProducer(FakeProducer(FakeBroker()), BulkOptions(source="test"))
    bulk.stop.set()
    with pytest.raises(typer.Exit) as ended:
        close_run(bulk, 1.0, "transactions-dlq")
    assert ended.value.exit_code == INTERRUPTED
    captured = capsys.readouterr()
    assert "0 transactions" in captured.out
    assert "interrupted" in captured.err
