"""Event time as most of the traffic has it, so that one stray clock does not move it for everybody."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

STEP_USERS = 5
"""Users whose transactions must have reached an instant within reach before event time does."""
JUMP_USERS = 20
"""Users whose transactions must lie out of reach before event time jumps to them."""
JUMP_MEMORY = 2_000.0
"""Transactions after which the weight of one is 1/e, when those out of reach are compared with the others."""
START_WEIGHT = 500
"""Transactions, weighted in that way, with which event time begins if they are of fewer than ``JUMP_USERS`` users."""
FAR_KEPT = 512

Times = NDArray[np.int64]
Users = NDArray[np.uint64]


class Far(NamedTuple):
    """A transaction whose event time is out of reach."""

    partition: int
    user: int
    time: int


class EventTimeSnapshot(msgspec.Struct, frozen=True):
    """``EventTime`` without the partitions' times."""

    newest_ms: int | None
    weight_far: float
    weight_usual: float
    users: list[int]
    leaders: list[tuple[int, int]]
    far: list[Far]
    ahead: int


class EventTime:
    """How far event time is, in all partitions and in each.

    A step (up to *reach_ms*) is made when ``STEP_USERS`` users have made it: one user is one voice, however many
    transactions it has. What is further ahead does not move event time, until transactions of ``JUMP_USERS`` users that
    are so far ahead are at least half of the recent traffic: then event time jumps to the median of these users. Where
    the traffic has fewer users than that, all of them must agree. It never goes back.

    Args:
        reach_ms: How far ahead a step may go. A partition that is further behind is idle.

    Attributes:
        newest_ms: Event time; None until enough transactions have come.
        ahead: Transactions that were out of reach since ``forget_ahead``, or since the last jump.
    """

    def __init__(self, reach_ms: int) -> None:
        self._reach_ms = reach_ms
        self._reached: dict[int, int] = {}
        self._users: set[int] = set()
        self._leaders: dict[int, int] = {}
        self._far: deque[Far] = deque(maxlen=FAR_KEPT)
        self._weight_far = 0.0
        self._weight_usual = 0.0
        self.newest_ms: int | None = None
        self.ahead = 0

    @property
    def watermark_ms(self) -> int | None:
        """Event time up to which panes are complete: the least of the partitions' times, idle ones left out.

        Partitions advance unevenly: the greatest would close windows that other partitions still fill, and the least
        would wait forever for a partition without new transactions.
        """
        if self.newest_ms is None:
            return None
        active = (at for at in self._reached.values() if at >= self.newest_ms - self._reach_ms)
        return min((*active, self.newest_ms))

    def observe(self, partition: int, times: Times, users: Users) -> None:
        """Take transactions of *partition* in; *times* (ms) and *users* (hashes) have shape (n,)."""
        if not len(times):
            return
        far = self._out_of_reach(times)
        distant = int(far.sum())
        fading = math.exp(-len(times) / JUMP_MEMORY)
        self._weight_far = self._weight_far * fading + distant
        self._weight_usual = self._weight_usual * fading + len(times) - distant
        if distant < len(times):
            self._step(partition, times[~far], users[~far])
        if distant:
            self.ahead += 0 if self.newest_ms is None else distant
            last = slice(-FAR_KEPT, None)
            self._far.extend(
                Far(partition, *row) for row in zip(users[far][last].tolist(), times[far][last].tolist(), strict=True)
            )
            if self._agreed():
                self._jump()

    def forget_ahead(self) -> None:
        """Count those out of reach from here on."""
        self.ahead = 0

    def snapshot(self) -> tuple[EventTimeSnapshot, list[tuple[int, int]]]:
        """The content, and the time of each partition, for ``restore``."""
        content = EventTimeSnapshot(
            self.newest_ms,
            self._weight_far,
            self._weight_usual,
            sorted(self._users),
            list(self._leaders.items()),
            list(self._far),
            self.ahead,
        )
        return content, list(self._reached.items())

    def restore(self, content: EventTimeSnapshot | None, reached: Iterable[tuple[int, int]]) -> None:
        """Replace the content by what ``snapshot`` gave; None: an earlier release, which believed every clock."""
        self._reached = dict(reached)
        if content is None:
            content = EventTimeSnapshot(max(self._reached.values(), default=None), 0.0, 0.0, [], [], [], 0)
        self.newest_ms = content.newest_ms
        self._weight_far = content.weight_far
        self._weight_usual = content.weight_usual
        self._users = set(content.users)
        self._leaders = dict(content.leaders)
        self._far = deque(content.far, FAR_KEPT)
        self.ahead = content.ahead

    def _out_of_reach(self, times: Times) -> NDArray[np.bool_]:
        if self.newest_ms is None:
            return np.ones(len(times), np.bool_)
        return times > self.newest_ms + self._reach_ms

    def _step(self, partition: int, times: Times, users: Users) -> None:
        """Move on to where enough users have been."""
        self._reached[partition] = max(int(times.max()), self._reached.get(partition, -1))
        if len(self._users) < JUMP_USERS:
            self._users.update(np.unique(users)[: JUMP_USERS - len(self._users)].tolist())
        if self.newest_ms is not None and times.max() <= self.newest_ms:
            return
        for user, time in _latest(times, users, STEP_USERS):
            self._leaders[user] = max(time, self._leaders.get(user, -1))
        leading = sorted(self._leaders.items(), key=lambda leader: leader[1], reverse=True)[:STEP_USERS]
        self._leaders = dict(leading)
        if len(leading) == min(STEP_USERS, len(self._users)):
            self.newest_ms = max(leading[-1][1], -1 if self.newest_ms is None else self.newest_ms)

    def _agreed(self) -> bool:
        voices = len({far.user for far in self._far})
        if self.newest_ms is None:
            return voices >= JUMP_USERS or self._weight_far >= START_WEIGHT
        return voices >= min(JUMP_USERS, len(self._users)) and self._weight_far >= self._weight_usual

    def _jump(self) -> None:
        """Move on to the median of the users that are far ahead, and from there as far as their times are in reach."""
        before = len(self._far)
        self.ahead = 0
        latest = sorted({far.user: far.time for far in self._far}.values())
        self.newest_ms = latest[(len(latest) - 1) // 2]
        while True:
            limit = self.newest_ms + self._reach_ms
            near = [far for far in self._far if far.time <= limit]
            if not near:
                break
            self._far = deque((far for far in self._far if far.time > limit), FAR_KEPT)
            for partition in {far.partition for far in near}:
                rows = [far for far in near if far.partition == partition]
                self._step(partition, np.array([r.time for r in rows]), np.array([r.user for r in rows], np.uint64))
        still_far = self._weight_far * len(self._far) / before
        self._weight_usual += self._weight_far - still_far
        self._weight_far = still_far


def _latest(times: Times, users: Users, count: int) -> list[tuple[int, int]]:
    """The *count* users with the latest times, and these times."""
    latest: dict[int, int] = {}
    for row in np.argsort(times, kind="stable")[::-1].tolist():
        latest.setdefault(int(users[row]), int(times[row]))
        if len(latest) == count:
            break
    return list(latest.items())
