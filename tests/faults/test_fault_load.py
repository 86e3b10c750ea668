"""Event time jumps only when everything before is in the log: it would be too late for terminals' windows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from centinela.times import DAY_MS
from tests.support.faultrun.ledger import Ledger
from tests.support.faultrun.sending import HttpSender, KafkaSender, Load
from tests.support.faultrun.workload import Item, Path, Profile, Workload

PROFILE = Profile(7, per_day=270, by_ingest=0.2, by_gateway=0.1, jumps={0: 12.0})
ITEMS = 330
"""The jump is the middle of a hundred."""


class Log:
    """What was written so far."""

    def __init__(self, ledger: Ledger) -> None:
        self.items: list[Item] = []
        self.outbox = 0
        self.looks = 0
        self._ledger = ledger
        self._lock = threading.Lock()

    def write(self, item: Item) -> None:
        with self._lock:
            self.items.append(item)
        self._ledger.end(item)

    def answer(self, item: Item) -> None:
        """Acknowledge *item*, which waits in an outbox."""
        with self._lock:
            self.outbox += 1
        self._ledger.end(item)

    def deliver(self, item: Item) -> None:
        with self._lock:
            self.items.append(item)
            self.outbox -= 1

    def look(self) -> int:
        self.looks += 1
        return self.looks


class ByKafka(KafkaSender):
    def __init__(self, write: Callable[[Item], None]) -> None:
        self._write = write

    def send(self, item: Item) -> None:
        self._write(item)

    def poll(self, timeout_s: float = 0.0) -> None:
        time.sleep(timeout_s)


class ByHttp(HttpSender):
    def __init__(self, send: Callable[[Item], None]) -> None:
        self._do = send

    def send(self, item: Item) -> None:
        self._do(item)

    def close(self) -> None:
        pass


def after(seconds: float, act: Callable[[Item], None]) -> Callable[[Item], None]:
    return lambda item: threading.Timer(seconds, act, (item,)).start()


class Ways(NamedTuple):
    ingest: Callable[[Item], None]
    gateway: Callable[[Item], None]
    slow: Path


def slow_ingest(log: Log) -> Ways:
    return Ways(after(0.3, log.write), log.write, "ingest")


def slow_outbox(log: Log) -> Ways:
    def send(item: Item) -> None:
        log.answer(item)
        after(0.3, log.deliver)(item)

    return Ways(log.write, send, "gateway")


@pytest.mark.parametrize("ways_of", [slow_ingest, slow_outbox])
def test_event_time_jumps_only_when_what_was_before_it_is_in_the_log(ways_of: Callable[[Log], Ways]) -> None:
    ledger = Ledger()
    log = Log(ledger)
    ways = ways_of(log)
    items = [item for item, _ in zip(Workload(PROFILE).items(), range(ITEMS), strict=False)]
    jump = next(n for n in range(1, ITEMS) if items[n].at_ms - items[n - 1].at_ms > 5 * DAY_MS)
    assert jump % 100 > 10, "a jump at a hundred is waited for in any case"
    assert ways.slow in {item.path for item in items[jump - jump % 100 : jump]}
    load = Load(
        iter(items),
        ledger,
        ByKafka(log.write),
        ByHttp(ways.ingest),
        ByHttp(ways.gateway),
        rate=10_000,
        lag=lambda: 0,
        outbox=lambda: log.outbox > 0,
        looks=log.look,
    )
    load.start()
    deadline = time.monotonic() + 20
    while len(log.items) < len(items) and load.failure is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert load.finish(5) == 0
    assert load.failure is None
    assert len(log.items) == len(items)
    assert {id(item) for item in log.items[:jump]} == {id(item) for item in items[:jump]}
