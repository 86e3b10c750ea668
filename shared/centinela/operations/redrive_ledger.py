"""What operators did with dead letters, compared with the log: every redriven record is in it exactly once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from centinela.deadletters.entries import read_resolution, redriven_from
from centinela.kafka.port import Record

U64 = npt.NDArray[np.uint64]
OFFSET_BITS = 48


def pack(partition: int, offset: int) -> int:
    """A position as one integer: 16 bits of partition, 48 of offset."""
    return partition << OFFSET_BITS | offset


def _none() -> U64:
    return np.zeros(0, np.uint64)


@dataclass(frozen=True)
class Redrives:
    """Dead letters that were resolved. Positions are packed, of dead letters; all three must be empty.

    Attributes:
        redriven: Dead letters whose record was put back.
        dropped: Dead letters that were resolved without that.
        twice: The log has more than one record that was made of the dead letter.
        lost: Resolved as redriven, but the log has no record that was made of it.
        unresolved: The log has a record that was made of it, but it has no resolution.
    """

    redriven: int = 0
    dropped: int = 0
    twice: U64 = field(default_factory=_none)
    lost: U64 = field(default_factory=_none)
    unresolved: U64 = field(default_factory=_none)


class RedriveLedger:
    """Collects from the log and from its DLQ what was redriven. *dlq* is the DLQ's name."""

    def __init__(self, dlq: str) -> None:
        self._dlq = dlq
        self._made: list[int] = []
        self._redriven: dict[int, bool] = {}
        self._dropped: set[int] = set()

    def take_log(self, records: Iterable[Record]) -> None:
        """Note which of *records* were made of dead letters."""
        for record in records:
            position = redriven_from(record.headers)
            if position is not None and position.topic == self._dlq:
                self._made.append(pack(position.partition, position.offset))

    def take_resolution(self, record: Record) -> bool:
        """Note what *record* of the DLQ says of a dead letter; False where it is a dead letter itself."""
        resolution = read_resolution(record)
        if resolution is None:
            return False
        position = pack(resolution.dead_letter.partition, resolution.dead_letter.offset)
        if resolution.kind == "dropped":
            self._dropped.add(position)
        else:
            self._redriven[position] = resolution.redriven_with == resolution.dead_letter
        return True

    def result(self, *, log_is_whole: bool) -> Redrives:
        """All that was noted so far. Where retention cut the log, a missing record is not an error."""
        made, counts = np.unique(np.array(self._made, np.uint64), return_counts=True)
        redriven = np.array(sorted(self._redriven), np.uint64)
        leading = np.array(sorted(position for position, leads in self._redriven.items() if leads), np.uint64)
        lost = np.setdiff1d(leading, made) if log_is_whole else _none()
        return Redrives(len(redriven), len(self._dropped), made[counts > 1], lost, np.setdiff1d(made, redriven))
