"""The event-time gate: it keeps partitions within reach of each other in event time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from centinela.features.state.terminals import SKEW_MS
from centinela_predictor.state.terminal_activity import IDLE


class Gate:
    """How far in event time a transaction may be scored, so that the terminal windows it reads are complete.

    Those windows end 7 days before the transaction, and events may be 2 days late: it may be scored as soon as every
    partition has announced a watermark no more than 5 days behind it. A partition that waits announces the time of its
    first deferred transaction, so the one that is furthest behind always makes progress. A partition without records
    for a while is announced ``IDLE`` by its owner and then counts as infinitely far ahead; its next record brings its
    watermark back. Its owner may be gone by then, so before a stream passes the last watermark of an idle partition it
    checks that the partition still ends where it was idle (``doubtful``). Until every partition has announced
    something, nothing with a terminal is scored: at a cold start that takes as long as an owner needs to announce its
    empty partitions idle (``CENTINELA_IDLE_AFTER_S``). A partition whose owner died keeps its watermark until it has a
    new owner.

    Args:
        partitions: All partitions of ``transactions``.
    """

    def __init__(self, partitions: Iterable[int]) -> None:
        self._watermarks: dict[int, int | None] = dict.fromkeys(partitions)
        self._idle: dict[int, int] = {}

    def announce(self, partition: int, watermark: int, end: int = 0) -> None:
        """*partition* is at *watermark*, or ``IDLE`` at its *end*. A partition that ``transactions`` does not have is
        ignored."""
        if partition not in self._watermarks:
            return
        if watermark == IDLE:
            self._idle[partition] = end
        else:
            self._idle.pop(partition, None)
            self._watermarks[partition] = watermark

    def announced(self, partition: int) -> int | None:
        """The last watermark announced of *partition*, or None."""
        return IDLE if partition in self._idle else self._watermarks.get(partition)

    @property
    def limit(self) -> int | None:
        """Latest event time (ms) that may be scored; None where nothing may; ``IDLE`` where anything may."""
        least = IDLE
        for partition, watermark in self._watermarks.items():
            if partition in self._idle:
                continue
            if watermark is None:
                return None
            least = min(least, watermark)
        return least if least == IDLE else least + SKEW_MS

    def doubtful(self, time: int) -> dict[int, int]:
        """Idle partitions whose last watermark does not reach a transaction of *time*, ms, with the offsets that they
        ended at."""
        return {
            p: end for p, end in self._idle.items() if (last := self._watermarks[p]) is None or time > last + SKEW_MS
        }

    def disbelieve(self, partition: int) -> None:
        """*partition* has records since it was idle: its last watermark counts again."""
        self._idle.pop(partition, None)

    def facts(self) -> dict[str, int]:
        """The announcements, for a snapshot."""
        watermarks = {
            f"watermark:{partition}": watermark
            for partition, watermark in self._watermarks.items()
            if watermark is not None
        }
        return watermarks | {f"idle:{partition}": end for partition, end in self._idle.items()}

    def restore(self, facts: Mapping[str, int]) -> None:
        """Take ``facts``, among others, into this fresh gate."""
        for prefix in ("watermark", "idle"):
            for name, value in facts.items():
                kind, _, partition = name.partition(":")
                if kind == prefix:
                    self.announce(int(partition), *((IDLE, value) if kind == "idle" else (value,)))
