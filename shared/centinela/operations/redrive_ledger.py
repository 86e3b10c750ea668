"""What operators did with dead letters, held against the log: every redriven letter's record is in it exactly once
[P]."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from centinela.deadletters.entries import closing_of, redriven_from
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
    """Letters that were closed. Positions are packed, of letters; all three must be empty.

    Attributes:
        redriven: Letters closed because their record was put back.
        dropped: Letters closed without.
        twice: More than one record in the log was made of the letter.
        lost: Closed as redriven, but the log has no record that was made of it.
        unclosed: The log has a record that was made of it, but nothing closes it.
    """

    redriven: int = 0
    dropped: int = 0
    twice: U64 = field(default_factory=_none)
    lost: U64 = field(default_factory=_none)
    unclosed: U64 = field(default_factory=_none)


class RedriveLedger:
    """Collects from the log and from its DLQ what was redriven. *letters* is the DLQ's name."""

    def __init__(self, letters: str) -> None:
        self._topic = letters
        self._made: list[int] = []
        self._closed: dict[int, bool] = {}
        self._dropped: set[int] = set()

    def take_log(self, records: Iterable[Record]) -> None:
        """Note which of *records* were made of letters."""
        for record in records:
            place = redriven_from(record.headers)
            if place is not None and place.topic == self._topic:
                self._made.append(pack(place.partition, place.offset))

    def take_closing(self, record: Record) -> bool:
        """Note what *record* of the DLQ says of a letter; False where it is a letter itself."""
        closing = closing_of(record)
        if closing is None:
            return False
        letter = pack(closing.letter.partition, closing.letter.offset)
        if closing.kind == "dropped":
            self._dropped.add(letter)
        else:
            self._closed[letter] = closing.answered_by == closing.letter
        return True

    def result(self, *, log_is_whole: bool) -> Redrives:
        """All that was noted so far. Where retention cut the log, a record that it does not have is no fault."""
        made, counts = np.unique(np.array(self._made, np.uint64), return_counts=True)
        closed = np.array(sorted(self._closed), np.uint64)
        leading = np.array(sorted(letter for letter, leads in self._closed.items() if leads), np.uint64)
        lost = np.setdiff1d(leading, made) if log_is_whole else _none()
        return Redrives(len(closed), len(self._dropped), made[counts > 1], lost, np.setdiff1d(made, closed))
