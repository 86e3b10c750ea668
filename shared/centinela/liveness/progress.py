"""Whether a consumer gets on [P]: fed with where it stands, asked whether it is stuck. No clock, no thread, no Kafka.

A consumer is stuck where its thread has not come round for a while, whatever it waits for: every wait of ours is
bounded. It is stuck as well where it comes round and records wait in a partition whose offset does not move: unless it
says what it waits for (``wait``), or its handler holds the partition back anew each time it is asked
(``Standing.holds``).
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

from centinela.clock import Clock, SystemClock

_OWN: ContextVar[Progress | None] = ContextVar("progress", default=None)


class Patience(NamedTuple):
    """Seconds. ``stuck_s``: without progress for so long a consumer is stuck. ``exit_s``: stuck for so long the process
    ends; None: never."""

    stuck_s: float = 120.0
    exit_s: float | None = None


PATIENCE = Patience()


class Standing(NamedTuple):
    """Where a partition stands: the next *offset* to deliver, the log's *end*, and how often its handler held it
    back."""

    offset: int
    end: int
    holds: int = 0

    @property
    def lag(self) -> int:
        return max(0, self.end - self.offset)


@dataclass
class _Seen:
    standing: Standing
    since: float


class Progress:
    """When a consumer last got on. Thread-safe.

    Args:
        stuck_s: Seconds without progress after which it is stuck.
        now: Seconds of a monotonic clock, as everywhere here.
    """

    def __init__(self, stuck_s: float, now: float) -> None:
        self._stuck_s = stuck_s
        self._lock = threading.Lock()
        self._beat = now
        self._seen: dict[Hashable, _Seen] = {}

    def beat(self, now: float) -> None:
        """The consumer's thread comes round."""
        with self._lock:
            self._beat = now

    def observe(self, standings: Mapping[Any, Standing], now: float) -> None:
        """All partitions that are read now stand so. One that moved, was held back anew, or has no lag, gets on."""
        with self._lock:
            before, self._seen = self._seen, {}
            for partition, standing in standings.items():
                known = before.get(partition)
                moved = known is None or (standing.offset, standing.holds) != (
                    known.standing.offset,
                    known.standing.holds,
                )
                self._seen[partition] = _Seen(
                    standing, now if known is None or moved or not standing.lag else known.since
                )

    def wait(self, now: float) -> None:
        """The consumer says what it waits for: its offsets need not move meanwhile. Its thread must come round
        still."""
        with self._lock:
            for seen in self._seen.values():
                seen.since = now

    def restart(self, now: float) -> None:
        """Nobody was looked at for a while (the process was frozen): count anew."""
        self.wait(now)
        self.beat(now)

    def stuck(self, now: float) -> str | None:
        """Why the consumer is stuck, in words; None where it is not."""
        with self._lock:
            if now - self._beat > self._stuck_s:
                return f"its thread has not come round for {now - self._beat:.0f} s"
            for partition, seen in self._seen.items():
                if seen.standing.lag and now - seen.since > self._stuck_s:
                    return (
                        f"{_name(partition)} stands at {seen.standing.offset} of {seen.standing.end} for"
                        f" {now - seen.since:.0f} s"
                    )
        return None

    def own(self) -> None:
        """From now on ``sign_of_life`` in this thread is a beat of this."""
        _OWN.set(self)


def sign_of_life(clock: Clock | None = None) -> None:
    """For work that takes long by nature: called between its steps, it tells that the thread is not stuck."""
    if (progress := _OWN.get()) is not None:
        progress.beat((clock or SystemClock()).monotonic())


def _name(partition: Hashable) -> str:
    return "-".join(map(str, partition)) if isinstance(partition, tuple) else str(partition)
