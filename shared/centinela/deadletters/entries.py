"""What a dead letter says, what became of it, and the record that a redrive makes of it.

A dead letter is never changed or deleted by an operator: a *resolution*, a record in its own topic and partition, says
that it was redriven or dropped, by whom and when. A redriven record carries its history in ``redrive.*`` headers, which
stay with it if it fails again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, NamedTuple, Self

import msgspec

from centinela.codec import DECODE_ERRORS, MAX_RECORD_BYTES
from centinela.deadletters.record import CUT_HEADERS, PREFIX, REDRIVE, cut_text
from centinela.kafka.port import Headers, Outgoing, Record
from centinela.topics import DLQ_SUFFIX

Kind = Literal["redriven", "dropped"]
HISTORY = 10
"""Failures that a record's history has at most, the newest; ``redrive.count`` counts all."""

_RESOLVED = "dlq.closed"
_DEAD_LETTER = "dlq.letter"
_REDRIVEN_WITH = "dlq.redriven_with"
_ORIGIN = ("dlq.topic", "dlq.partition", "dlq.offset")


class RecordPosition(NamedTuple):
    """The position of a record in the log; as text ``topic:partition:offset``."""

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
        """Raises ``ValueError`` where *text* is not a position."""
        topic, partition, offset = text.rsplit(":", 2)
        if not topic or not partition.isdecimal() or not offset.isdecimal():
            raise ValueError(f"{text!r} is not topic:partition:offset")
        return cls(topic, int(partition), int(offset))


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``redrive.history``: why and where a record failed, and who redrove it."""

    reason: str
    at: str
    position: str = msgspec.field(name="place")
    dead_letter: str = msgspec.field(name="letter")
    redriven_at: str
    by: str


class DeadLetterEntry(NamedTuple):
    """A dead letter as its headers describe it. *origin* None: the record never was in a topic, or its headers do not
    say."""

    position: RecordPosition
    reason: str
    at: datetime | None
    origin: RecordPosition | None
    source: str
    transaction_id: str | None
    redrives: int
    cut: bool

    @property
    def obstacle(self) -> str | None:
        """Why it cannot be redriven, or None."""
        if self.origin is None:
            return "never_in_a_topic"
        if self.origin.topic + DLQ_SUFFIX != self.position.topic:
            return "foreign_origin"
        return "cut_short" if self.cut else None


class Resolution(NamedTuple):
    """What became of the dead letter at *dead_letter*. *redriven_with*: the dead letter whose redrive put the record
    back (often the same)."""

    dead_letter: RecordPosition
    kind: Kind
    by: str
    why: str
    at: str
    origin: RecordPosition | None
    redriven_with: RecordPosition


class _Id(msgspec.Struct):
    transaction_id: str


_id = msgspec.json.Decoder(_Id)
_history = msgspec.json.Decoder(list[Failure])


def transaction_id(value: bytes | None) -> str | None:
    """The transaction id in a record's value; None where it cannot be read."""
    try:
        return _id.decode(value or b"").transaction_id or None
    except DECODE_ERRORS:
        return None


def read_entry(record: Record) -> DeadLetterEntry:
    """What *record*, a dead letter, says."""
    headers = _texts(record.headers)
    return DeadLetterEntry(
        RecordPosition.of(record),
        headers.get("dlq.reason", "unknown"),
        _instant(headers.get("dlq.at", "")),
        _origin(headers),
        headers.get("dlq.source") or headers.get("ce_source", ""),
        transaction_id(record.value),
        redrive_count(record.headers),
        not CUT_HEADERS.isdisjoint(headers) or len(record.value or b"") > MAX_RECORD_BYTES,
    )


def is_resolution(record: Record) -> bool:
    """Whether a record of a DLQ is not a dead letter, but says what became of one."""
    return any(name == _RESOLVED for name, _ in record.headers)


def read_resolution(record: Record) -> Resolution | None:
    """What *record* says about a dead letter; None where it is a dead letter itself, or unreadable."""
    headers = _texts(record.headers)
    kind = headers.get(_RESOLVED)
    if kind not in ("redriven", "dropped"):
        return None
    try:
        dead_letter = RecordPosition.parse(headers[_DEAD_LETTER])
        redriven_with = RecordPosition.parse(headers[_REDRIVEN_WITH]) if _REDRIVEN_WITH in headers else dead_letter
    except (KeyError, ValueError):
        return None
    return Resolution(
        dead_letter,
        kind,  # type: ignore[arg-type]
        headers.get("dlq.by", ""),
        headers.get("dlq.why", ""),
        headers.get("dlq.at", ""),
        _origin(headers),
        redriven_with,
    )


def resolution_record(
    entry: DeadLetterEntry,
    kind: Kind,
    *,
    by: str,
    why: str,
    at: datetime,
    redriven_with: RecordPosition | None = None,
) -> Outgoing:
    """The record that resolves *entry*, for its own topic and partition."""
    position = str(entry.position).encode()
    headers = [
        (_RESOLVED, kind.encode()),
        (_DEAD_LETTER, position),
        ("dlq.by", cut_text(by)),
        ("dlq.why", cut_text(why)),
        ("dlq.at", at.isoformat().encode()),
    ]
    if redriven_with is not None and redriven_with != entry.position:
        headers.append((_REDRIVEN_WITH, str(redriven_with).encode()))
    if entry.origin is not None:
        headers += [(name, str(part).encode()) for name, part in zip(_ORIGIN, entry.origin, strict=True)]
    return Outgoing(entry.position.topic, None, position, tuple(headers), entry.position.partition)


def redriven_record(record: Record, entry: DeadLetterEntry, *, by: str, at: datetime) -> Outgoing:
    """The record that *entry* was made of, for its topic again: key, value and headers as they were, and its history.

    It goes to the partition of its key as the topic is now; one without a key goes back to its own.

    Raises:
        ValueError: The entry has an ``obstacle``.
    """
    if entry.obstacle is not None or entry.origin is None:
        raise ValueError(f"{entry.position} cannot be redriven: {entry.obstacle}")
    failure = Failure(
        reason=entry.reason,
        at=entry.at.isoformat() if entry.at else "",
        position=str(entry.origin),
        dead_letter=str(entry.position),
        redriven_at=at.isoformat(),
        by=cut_text(by).decode(),
    )
    history = [*history_of(record.headers), failure][-HISTORY:]
    originals = tuple((name, value or b"") for name, value in record.headers if not name.startswith((PREFIX, REDRIVE)))
    headers = (
        *originals,
        ("redrive.count", b"%d" % (entry.redrives + 1)),
        ("redrive.letter", str(entry.position).encode()),
        ("redrive.history", msgspec.json.encode(history)),
    )
    return Outgoing(
        entry.origin.topic, record.value, record.key, headers, entry.origin.partition if record.key is None else None
    )


def history_of(headers: Headers) -> list[Failure]:
    """A record's failures, the oldest first; empty where it has none that can be read."""
    for name, value in headers:
        if name == "redrive.history" and value:
            try:
                return _history.decode(value)
            except DECODE_ERRORS:
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


def redriven_from(headers: Headers) -> RecordPosition | None:
    """The dead letter that a record of a data topic was redriven from; None where it was not redriven."""
    for name, value in headers:
        if name == "redrive.letter" and value:
            try:
                return RecordPosition.parse(value.decode())
            except ValueError:
                return None
    return None


def _texts(headers: Headers) -> dict[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in headers}


def _origin(headers: dict[str, str]) -> RecordPosition | None:
    try:
        return RecordPosition(headers["dlq.topic"], int(headers["dlq.partition"]), int(headers["dlq.offset"]))
    except (KeyError, ValueError):
        return None


def _instant(text: str) -> datetime | None:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
