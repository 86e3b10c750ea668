"""Event time of feature rows: which of several is the newest, and which is too old to be served."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from centinela.times import EPOCH, to_us

Key = TypeVar("Key")
Row = TypeVar("Row")
Values = TypeVar("Values")
Read = tuple[datetime | None, Values | None]


def microseconds(instant: datetime) -> int:
    """Microseconds since 1970; a naive instant is UTC, as in Feast."""
    return to_us(instant if instant.tzinfo else instant.replace(tzinfo=UTC))


def newest_of_each(rows: Iterable[tuple[Key, int, Row]]) -> dict[Key, tuple[int, Row]]:
    """Of the rows of each key, ``(key, event time, row)``, that with the greatest event time; of equal ones the
    last."""
    newest: dict[Key, tuple[int, Row]] = {}
    for key, at, row in rows:
        if key not in newest or at >= newest[key][0]:
            newest[key] = at, row
    return newest


def without_expired(rows: Sequence[Read[Values]], ttl: timedelta | None, now: datetime) -> list[Read[Values]]:
    """*rows*, ``(event time, values)`` each, with ``(None, None)`` for rows that are older than *ttl* at *now* or were
    never written.

    A row exactly *ttl* old is served, as in Feast's offline join. No *ttl*, or one of zero, never expires.
    """
    least = now - ttl if ttl else EPOCH
    return [
        (None, None) if at is None or values is None or at == EPOCH or at < least else (at, values)
        for at, values in rows
    ]
