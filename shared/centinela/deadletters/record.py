"""Dead letters: records that no retry can help, kept whole, with the reason and the origin in their headers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from centinela.codec import MAX_RECORD_BYTES
from centinela.errors import CentinelaError, InvalidRecord
from centinela.kafka.port import Outgoing, Record
from centinela.topics import DLQ_SUFFIX

PREFIX = "dlq."
REDRIVE = "redrive."
"""Headers of a record that failed before: they stay with it, whatever else has to be left out."""
CUT_HEADERS = frozenset({"dlq.size", "dlq.key_size", "dlq.headers_dropped"})
"""A dead letter with one of these is less than its record."""
DETAIL_BYTES = 1_000
KEY_BYTES = 10_000
HEADER_BYTES = 20_000
"""Together with ``MAX_RECORD_BYTES`` of the value and the ``dlq.*`` headers less than producer and topic accept."""

_HEADER_FRAME = 10


class DeadLetter(NamedTuple):
    """A record and why it cannot be processed, for a handler to return. ``reason`` is a constant in snake_case."""

    record: Record
    reason: str
    detail: str = ""

    @classmethod
    def of(cls, record: Record, invalid: InvalidRecord) -> DeadLetter:
        """The dead letter for *invalid*, raised on *record*."""
        return cls(record, invalid.reason, invalid.detail)


class DeadLetterFlood(CentinelaError):
    """So many records of a topic are refused that this service is probably wrong: stop rather than drain the topic."""


def dead_letter(record: Record, reason: str, detail: str, *, at: datetime) -> Outgoing:
    """The record to write to ``<topic>-dlq``: key and value bytes as they came, the original headers, and the origin.

    However large the record was (compressed, it may be larger than a producer accepts), its dead letter can be written:
    a value is cut to ``MAX_RECORD_BYTES`` and a key to ``KEY_BYTES``, and ``dlq.size`` and ``dlq.key_size`` then have
    their full sizes; of headers past ``HEADER_BYTES`` only the count is kept, in ``dlq.headers_dropped``. What the
    record says of earlier failures (``redrive.*``) comes first. A record with neither key nor value gets an empty
    value, and a header without a value an empty one: not every client can write them otherwise.
    """
    key, value = record.key, record.value
    if key is None and value is None:
        value = b""
    originals = [(name, value or b"") for name, value in record.headers if not name.startswith(PREFIX)]
    originals.sort(key=lambda header: not header[0].startswith(REDRIVE))
    headers = _fitting(originals)
    if len(headers) < len(originals):
        headers.append(("dlq.headers_dropped", b"%d" % (len(originals) - len(headers))))
    headers += [
        ("dlq.reason", reason.encode()),
        ("dlq.detail", cut_text(detail)),
        ("dlq.topic", record.topic.encode()),
        ("dlq.partition", b"%d" % record.partition),
        ("dlq.offset", b"%d" % record.offset),
        ("dlq.at", at.isoformat().encode()),
    ]
    if value is not None and len(value) > MAX_RECORD_BYTES:
        headers.append(("dlq.size", b"%d" % len(value)))
        value = value[:MAX_RECORD_BYTES]
    if key is not None and len(key) > KEY_BYTES:
        headers.append(("dlq.key_size", b"%d" % len(key)))
        key = key[:KEY_BYTES]
    return Outgoing(record.topic + DLQ_SUFFIX, value, key, tuple(headers))


def cut_text(detail: str) -> bytes:
    """*detail* as a header's value: UTF-8 of at most ``DETAIL_BYTES``, whatever characters it has."""
    return detail.encode(errors="replace")[:DETAIL_BYTES].decode(errors="ignore").encode()


def _fitting(headers: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The first of *headers* that fit into ``HEADER_BYTES`` together."""
    kept: list[tuple[str, bytes]] = []
    room = HEADER_BYTES
    for name, value in headers:
        room -= len(name.encode()) + len(value) + _HEADER_FRAME
        if room < 0:
            break
        kept.append((name, value))
    return kept


EXPECTED = frozenset({"wrong_partition"})
"""Reasons that tell of a producer alone, and that somebody asked to refuse: no number of them stops a consumer."""


class DeadLetterCap:
    """Watches the share of dead letters over the newest records.

    Args:
        max_share: Largest share of dead letters in the window, in [0, 1]; 1 never stops.
        window: Number of the newest records.
        min_records: Records needed before the share means anything.
    """

    def __init__(self, max_share: float = 0.5, window: int = 1_000, min_records: int = 200) -> None:
        self._max_share = max_share
        self._window = window
        self._min = min_records
        self._batches: deque[tuple[int, int]] = deque()
        self._records = 0
        self._dead = 0

    def check(self, records: int, dead: int) -> None:
        """Count a batch of *records*, *dead* of which are dead letters.

        Raises:
            DeadLetterFlood: The share is past the limit; nothing of the batch may be committed.
        """
        self._batches.append((records, dead))
        self._records += records
        self._dead += dead
        while self._records - self._batches[0][0] >= self._window:
            old_records, old_dead = self._batches.popleft()
            self._records -= old_records
            self._dead -= old_dead
        if self._records >= self._min and self._dead > self._max_share * self._records:
            raise DeadLetterFlood(
                f"{self._dead} of the last {self._records} records cannot be processed (at most {self._max_share:.0%}"
                " may). Nothing of this batch was committed: look at the dead letters, then fix the producer or this"
                " service."
            )
