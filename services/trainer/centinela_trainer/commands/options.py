"""``--as-of``: an instant on the command line."""

from __future__ import annotations

from datetime import datetime

from centinela.errors import CentinelaError


def parse_instant(text: str | None) -> datetime | None:
    """The instant *text*, ISO 8601 with its zone; None where none was given.

    Raises:
        CentinelaError: It is not an instant, or has no zone.
    """
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise CentinelaError(f"--as-of {text}: not an ISO 8601 instant") from error
    if instant.tzinfo is None:
        raise CentinelaError(f"--as-of {text}: has no zone; write {text}Z or {text}+00:00")
    return instant
