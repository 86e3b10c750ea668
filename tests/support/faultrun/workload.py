"""The load: transactions, copies, conflicts, broken records and labels in order of event time. The same seed makes the
same."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import numpy as np

from centinela.times import DAY_MS, HOUR_MS, from_ms, to_ms

START_MS = to_ms(datetime(2024, 1, 1, tzinfo=UTC))
ATTRIBUTES = ("v1", "v2")

Path = Literal["kafka", "ingest", "gateway"]
_PATHS: tuple[Path, ...] = ("kafka", "ingest", "gateway")
What = Literal["transaction", "copy", "conflict", "malformed", "refused", "label"]


class Item(NamedTuple):
    """Something to send when event time has come to *at_ms*. ``id``: of the transaction, or of the broken record."""

    at_ms: int
    path: Path
    what: What
    id: str
    key: bytes
    value: bytes | None


@dataclass(frozen=True)
class Profile:
    """What the load is made of; shares are of the transactions.

    Attributes:
        jumps: After that day event time jumps by so many days, forward or back.
    """

    seed: int
    per_day: int = 20_000
    users: int = 6_000
    terminals: int = 1_500
    by_ingest: float = 0.035
    by_gateway: float = 0.015
    late: float = 0.01
    copies: float = 0.005
    conflicts: float = 0.001
    malformed: float = 0.002
    frauds: float = 0.05
    withdrawn: float = 0.05
    jumps: dict[int, float] = field(default_factory=lambda: {12: 3.0, 24: 12.0, 36: -1.0})


class Workload:
    """An endless stream of items. Users of the gateway and of the ingest API are nobody else's: their next request
    comes after the last is answered."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._later: list[tuple[int, int, Item]] = []
        self._numbers = itertools.count()

    def items(self) -> Iterator[Item]:
        """Everything, in the order in which it is to be sent."""
        offset_ms = 0
        for day in itertools.count():
            for item in self._day(day, START_MS + day * DAY_MS + offset_ms):
                while self._later and self._later[0][0] <= item.at_ms:
                    yield heapq.heappop(self._later)[2]
                yield item
            offset_ms += round(self.profile.jumps.get(day, 0.0) * DAY_MS)

    def _day(self, day: int, start_ms: int) -> Iterator[Item]:
        profile = self.profile
        random = np.random.default_rng([profile.seed, day])
        n = profile.per_day
        times = np.sort(random.integers(0, DAY_MS // 20, n)) * 20 + start_ms
        path = random.choice(
            3, n, p=[1 - profile.by_ingest - profile.by_gateway, profile.by_ingest, profile.by_gateway]
        )
        user = random.integers(0, profile.users, n)
        terminal = random.integers(0, profile.terminals, n)
        cents = random.integers(1, 60_000, n)
        numbers = np.round(random.normal(size=(n, 2)), 4)
        chance = random.random((n, 6))
        back = np.where((chance[:, 0] < profile.late) & (path == 0), random.integers(0, int(0.9 * DAY_MS), n), 0)
        lag = random.random((n, 4))
        rows = zip(
            times.tolist(),
            path.tolist(),
            user.tolist(),
            terminal.tolist(),
            cents.tolist(),
            numbers.tolist(),
            chance.tolist(),
            back.tolist(),
            lag.tolist(),
            strict=True,
        )
        for number, (at, by, who, where, amount, (v1, v2), luck, late, lags) in enumerate(rows):
            name = f"{profile.seed}-{day:03d}-{number:06d}"
            way: Path = _PATHS[by]
            user_id = f"{'kig'[by]}{who if by == 0 else who % (profile.users // 10)}"
            no_user, no_terminal = by == 0 and luck[1] < 0.005, luck[2] < 0.01
            value = payload(
                name, at - late, amount, None if no_user else user_id, None if no_terminal else f"t{where}", v1, v2
            )
            item = Item(at, way, "transaction", name, (name if no_user else user_id).encode(), value)
            yield item
            self._plan_more(item, at - late, luck, lags, amount)
            if luck[5] < profile.malformed:
                yield _broken(f"x{name}", at, number, way == "ingest")

    def _plan_more(self, item: Item, occurred: int, luck: list[float], lags: list[float], amount: int) -> None:
        """A copy, a conflict and labels, for later."""
        profile = self.profile
        if luck[3] < profile.copies:
            other: Path = "ingest" if item.path == "kafka" and lags[0] < 0.2 else item.path
            self._plan(item._replace(at_ms=item.at_ms + HOUR_MS + int(lags[0] * DAY_MS), what="copy", path=other))
        elif luck[3] > 1 - profile.conflicts and item.path == "kafka":
            assert item.value is not None
            changed = item.value.replace(b'"amount":%s' % _major(amount), b'"amount":%s' % _major(amount + 100))
            self._plan(
                item._replace(at_ms=item.at_ms + HOUR_MS + int(lags[0] * DAY_MS), what="conflict", value=changed)
            )
        if luck[4] < profile.frauds:
            told = item.at_ms + DAY_MS // 2 + int(lags[1] * DAY_MS / 2)
            reported = occurred + DAY_MS + int(lags[2] * 4 * DAY_MS)
            by: Path = "ingest" if lags[3] < 0.1 else "kafka"
            self._plan(Item(told, by, "label", item.id, item.key, label(item, occurred, reported, fraud=True)))
            if lags[1] < profile.withdrawn:
                self._plan(
                    Item(
                        told + 2 * HOUR_MS,
                        "kafka",
                        "label",
                        item.id,
                        item.key,
                        label(item, occurred, reported + DAY_MS, fraud=False),
                    )
                )

    def _plan(self, item: Item) -> None:
        heapq.heappush(self._later, (item.at_ms, next(self._numbers), item))


def payload(
    name: str, occurred_ms: int, cents: int, user: str | None, terminal: str | None, v1: float, v2: float
) -> bytes:
    """A transaction as JSON."""
    whom = (f'"user_id":"{user}",' if user else "") + (f'"terminal_id":"{terminal}",' if terminal else "")
    return (
        f'{{"transaction_id":"{name}",{whom}"occurred_at":"{timestamp(occurred_ms)}",'.encode()
        + b'"amount":%s,' % _major(cents)
        + f'"attributes":{{"v1":{v1},"v2":{v2}}}}}'.encode()
    )


def label(item: Item, occurred_ms: int, reported_ms: int, *, fraud: bool) -> bytes:
    """What is reported of *item*, as JSON."""
    user = f'"user_id":"{item.key.decode()}",' if item.key.decode() != item.id else ""
    return (
        f'{{"transaction_id":"{item.id}",{user}"is_fraud":{"true" if fraud else "false"},'
        f'"occurred_at":"{timestamp(occurred_ms)}",'
        f'"reported_at":"{timestamp(reported_ms)}"}}'
    ).encode()


def timestamp(milliseconds: int) -> str:
    """RFC 3339."""
    return from_ms(milliseconds).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _major(cents: int) -> bytes:
    return b"%d.%02d" % divmod(cents, 100)


def _broken(name: str, at_ms: int, number: int, by_ingest: bool) -> Item:
    """A record that is no transaction: each kind in turn."""
    good = payload(name, at_ms, 100, "broken", "t0", 0.0, 0.0)
    kinds = [
        good[:-20],
        b"\xff\xfe\x00",
        good.replace(b'"amount":1.00', b'"amount":-1.00'),
        good.replace(b'"amount":1.00,', b""),
        good.replace(b'"2024', b'"2999'),
        good.replace(b'"amount"', b'"verdict":{"origin":"gateway","decision":"approve","variant":"champion"},"amount"'),
        None,
    ]
    if by_ingest:
        return Item(at_ms, "ingest", "refused", name, b"broken", kinds[number % 4])
    return Item(at_ms, "kafka", "malformed", name, name.encode(), kinds[number % len(kinds)])
