"""The Feast role's handler: what reaches the store, in which order, and what happens while the store is unavailable."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from centinela.consuming.loop import SinkLoop
from centinela.consuming.options import LoopOptions
from centinela.deadletters.record import DeadLetterCap
from centinela.errors import DependencyUnavailable
from centinela.events import TransactionScored, encode
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.kafka.port import TopicPartition
from centinela.liveness.health import Health
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeProducer
from centinela_predictor.feast.sink import FeastSink

START = datetime(2026, 3, 1, tzinfo=UTC)
NARROW, WIDE = FeatureLayout(), FeatureLayout(("v1",))


class Shelf:
    """Keeps what is pushed; ``unavailable`` makes it fail so many times."""

    def __init__(self, unavailable: int = 0) -> None:
        self.pushed: list[pd.DataFrame] = []
        self.unavailable = unavailable

    def push(self, served: pd.DataFrame) -> None:
        if self.unavailable:
            self.unavailable -= 1
            raise DependencyUnavailable("no answer", dependency="feature store")
        self.pushed.append(served)


class Unhurried(threading.Event):
    """A stop event on which nobody waits: pauses between attempts take no time."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


def verdict(number: int, layout: FeatureLayout = NARROW, **changes: object) -> TransactionScored:
    row = np.arange(len(layout.names), dtype=float) + 100 * number
    facts: dict[str, object] = {
        "transaction_id": f"t{number}",
        "occurred_at": START + timedelta(microseconds=number),
        "amount": 1.0,
        "decision": "approve",
        "variant": "none",
        "origin": "history",
        "feature_set": layout.id,
        "features": pack_rows(row[None, :])[0],
        "scored_at": START,
        "user_id": "u1",
    }
    return TransactionScored(**(facts | changes))  # type: ignore[arg-type]


def run(values: list[bytes], shelf: Shelf, steps: int = 8) -> tuple[FakeBroker, Health]:
    broker = FakeBroker()
    for topic in ("predictions", "predictions-dlq"):
        broker.create(topic, 1)
    for value in values:
        broker.append("predictions", value, b"u1")
    health = Health()
    loop = SinkLoop(
        FakeConsumer(broker, "feast"),
        FakeProducer(broker),
        FeastSink(shelf, FixedClock(START)),
        topics=["predictions"],
        health=health,
        stop=Unhurried(),
        options=LoopOptions(poll_timeout_s=0.0, cap=DeadLetterCap(max_share=1.0)),
    )
    for _ in range(steps):
        loop.run_once()
    return broker, health


def committed(broker: FakeBroker) -> int | None:
    return broker.committed("feast").get(TopicPartition("predictions", 0))


def test_vectors_are_pushed_by_column_in_log_order_then_committed() -> None:
    shelf = Shelf()
    broker, _ = run([encode(verdict(n, user_id=None if n == 1 else f"u{n}", terminal_id="m")) for n in range(3)], shelf)
    [served] = shelf.pushed
    assert served["user_id"].tolist() == ["u0", None, "u2"]
    assert served["amount"].tolist() == [0.0, 100.0, 200.0]
    assert served["terminal_risk_30d"].tolist() == [16.0, 116.0, 216.0]
    assert [at.microsecond for at in served["occurred_at"]] == [0, 1, 2]
    assert committed(broker) == 3


def test_vectors_of_two_layouts_keep_their_order_and_lack_what_they_have_not() -> None:
    shelf = Shelf()
    run([encode(verdict(n, WIDE if n % 2 else NARROW)) for n in range(4)], shelf)
    [served] = shelf.pushed
    assert served["amount"].tolist() == [0.0, 100.0, 200.0, 300.0]
    np.testing.assert_array_equal(served["v1"], [np.nan, 117.0, np.nan, 317.0])


def test_refunds_have_no_windows_and_are_not_pushed() -> None:
    shelf = Shelf()
    values = [verdict(0), verdict(1, kind="refund"), verdict(2, WIDE, kind="reversal")]
    broker, _ = run([encode(value) for value in values], shelf)
    [served] = shelf.pushed
    assert served["amount"].tolist() == [0.0]
    assert committed(broker) == 3
    alone = Shelf()
    run([encode(verdict(0, kind="refund"))], alone)
    assert alone.pushed == []


def test_while_the_store_is_away_nothing_is_committed_and_afterwards_all_of_it_is_pushed() -> None:
    values = [encode(verdict(n)) for n in range(3)]
    broker, health = run(values, Shelf(unavailable=99))
    assert committed(broker) is None
    assert health.unmet()["feature store"] == "no answer"

    shelf = Shelf(unavailable=2)
    broker, health = run(values, shelf)
    assert len(shelf.pushed) == 1
    assert committed(broker) == 3
    assert health.ready


@pytest.mark.parametrize("bad", [b"{", encode(verdict(0, feature_set="v9:")), encode(verdict(0, feature_set=WIDE.id))])
def test_what_cannot_be_read_is_dead_lettered_and_the_rest_is_pushed(bad: bytes) -> None:
    shelf = Shelf()
    broker, _ = run([bad, encode(verdict(1))], shelf)
    [dead] = broker.records("predictions-dlq")
    assert dead.value == bad
    assert [len(served) for served in shelf.pushed] == [1]
    assert committed(broker) == 2
