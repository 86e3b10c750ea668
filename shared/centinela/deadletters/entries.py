"""What a letter says, what became of it, and the record that a redrive makes of it [P].

A letter is never changed or deleted by an operator: a *closing* beside it, in its own partition, says that it was
redriven or dropped, by whom and when. A redriven record carries its history in ``redrive.*`` headers, which stay with
it if it dies again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, NamedTuple, Self

import msgspec

from centinela.codec import MAX_RECORD_BYTES
from centinela.deadletters.record import CUT_HEADERS, PREFIX, REDRIVE, cut_text
from centinela.kafka.port import Headers, Outgoing, Record
from centinela.topics import DLQ_SUFFIX

Kind = Literal["redriven", "dropped"]
HISTORY = 10
"""Deaths that a record's history tells of at most, the newest; ``redrive.count`` counts all."""

_CLOSED, _LETTER, _ANSWERED_BY = "dlq.closed", "dlq.letter", "dlq.redriven_with"
_ORIGIN = ("dlq.topic", "dlq.partition", "dlq.offset")


class Place(NamedTuple):
    """Where a record stands; as text ``topic:partition:offset``."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"

    @classmethod
    def of(cls, record: Record) -> Self:
        return cls(record.topic, record.partition, record.offset)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ``ValueError`` where *text* is no place."""
        topic, partition, offset = text.rsplit(":", 2)
        if not topic or not partition.isdecimal() or not offset.isdecimal():
            raise ValueError(f"{text!r} is not topic:partition:offset")
        return cls(topic, int(partition), int(offset))


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``redrive.history``: why and where a record died, and who sent it on."""

    reason: str
    at: str
    place: str
    letter: str
    redriven_at: str
    by: str


class Letter(NamedTuple):
    """What the headers of a dead letter say. *origin* None: the record never was in a topic, or its headers do not
    tell."""

    place: Place
    reason: str
    at: datetime | None
    origin: Place | None
    source: str
    transaction_id: str | None
    redrives: int
    cut: bool

    @property
    def obstacle(self) -> str | None:
        """Why it cannot be redriven, or None."""
        if self.origin is None:
            return "never_in_a_topic"
        if self.origin.topic + DLQ_SUFFIX != self.place.topic:
            return "foreign_origin"
        return "cut_short" if self.cut else None


class Closing(NamedTuple):
    """What became of the letter at *letter*. *answered_by*: the letter whose redrive put the record back (often
    itself)."""

    letter: Place
    kind: Kind
    by: str
    why: str
    at: str
    origin: Place | None
    answered_by: Place


class _Id(msgspec.Struct):
    transaction_id: str


_id = msgspec.json.Decoder(_Id)
_history = msgspec.json.Decoder(list[Death])


def transaction_id(value: bytes | None) -> str | None:
    """The transaction id in a record's value; None where it cannot be read."""
    try:
        return _id.decode(value or b"").transaction_id or None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def letter_of(record: Record) -> Letter:
    """What *record*, a dead letter, says."""
    said = _texts(record.headers)
    return Letter(
        Place.of(record),
        said.get("dlq.reason", "unknown"),
        _instant(said.get("dlq.at", "")),
        _origin(said),
        said.get("dlq.source") or said.get("ce_source", ""),
        transaction_id(record.value),
        redrive_count(record.headers),
        not CUT_HEADERS.isdisjoint(said) or len(record.value or b"") > MAX_RECORD_BYTES,
    )


def is_closing(record: Record) -> bool:
    """Whether a record of a DLQ is no letter but says what became of one."""
    return any(name == _CLOSED for name, _ in record.headers)


def closing_of(record: Record) -> Closing | None:
    """What *record* says about a letter; None where it is a letter itself, or unreadable."""
    said = _texts(record.headers)
    kind = said.get(_CLOSED)
    if kind not in ("redriven", "dropped"):
        return None
    try:
        letter = Place.parse(said[_LETTER])
        answered_by = Place.parse(said[_ANSWERED_BY]) if _ANSWERED_BY in said else letter
    except (KeyError, ValueError):
        return None
    return Closing(
        letter,
        kind,  # type: ignore[arg-type]
        said.get("dlq.by", ""),
        said.get("dlq.why", ""),
        said.get("dlq.at", ""),
        _origin(said),
        answered_by,
    )


def closing_record(
    letter: Letter, kind: Kind, *, by: str, why: str, at: datetime, answered_by: Place | None = None
) -> Outgoing:
    """The record that closes *letter*, for the letter's own partition."""
    headers = [
        (_CLOSED, kind.encode()),
        (_LETTER, str(letter.place).encode()),
        ("dlq.by", cut_text(by)),
        ("dlq.why", cut_text(why)),
        ("dlq.at", at.isoformat().encode()),
    ]
    if answered_by is not None and answered_by != letter.place:
        headers.append((_ANSWERED_BY, str(answered_by).encode()))
    if letter.origin is not None:
        headers += [(name, str(part).encode()) for name, part in zip(_ORIGIN, letter.origin, strict=True)]
    return Outgoing(letter.place.topic, None, str(letter.place).encode(), tuple(headers), letter.place.partition)


def redriven_record(record: Record, letter: Letter, *, by: str, at: datetime) -> Outgoing:
    """The record that *letter* was made of, for its topic again: key, value and headers as they were, and its history.

    It goes to the partition of its key as the topic is now; one without a key goes back to its own.

    Raises:
        ValueError: The letter has an ``obstacle``.
    """
    if letter.obstacle is not None or letter.origin is None:
        raise ValueError(f"{letter.place} cannot be redriven: {letter.obstacle}")
    death = Death(
        reason=letter.reason,
        at=letter.at.isoformat() if letter.at else "",
        place=str(letter.origin),
        letter=str(letter.place),
        redriven_at=at.isoformat(),
        by=cut_text(by).decode(),
    )
    history = [*history_of(record.headers), death][-HISTORY:]
    originals = tuple((name, value or b"") for name, value in record.headers if not name.startswith((PREFIX, REDRIVE)))
    headers = (
        *originals,
        ("redrive.count", b"%d" % (letter.redrives + 1)),
        ("redrive.letter", str(letter.place).encode()),
        ("redrive.history", msgspec.json.encode(history)),
    )
    return Outgoing(
        letter.origin.topic, record.value, record.key, headers, letter.origin.partition if record.key is None else None
    )


def history_of(headers: Headers) -> list[Death]:
    """The deaths that a record tells of, the oldest first; empty where it tells of none that can be read."""
    for name, value in headers:
        if name == "redrive.history" and value:
            try:
                return _history.decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError):
                return []
    return []


def redrive_count(headers: Headers) -> int:
    """How often a record was redriven."""
    return next(
        (
            int(value)
            for name, value in headers
            if name == "redrive.count" and value and value.isdigit() and len(value) < 10
        ),
        0,
    )


def redriven_from(headers: Headers) -> Place | None:
    """The letter that a record of a data topic was redriven from; None where it came by itself."""
    for name, value in headers:
        if name == "redrive.letter" and value:
            try:
                return Place.parse(value.decode())
            except ValueError:
                return None
    return None


def _texts(headers: Headers) -> dict[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in headers}


def _origin(said: dict[str, str]) -> Place | None:
    try:
        return Place(said["dlq.topic"], int(said["dlq.partition"]), int(said["dlq.offset"]))
    except (KeyError, ValueError):
        return None


def _instant(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
