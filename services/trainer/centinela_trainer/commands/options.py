"""``--as-of``: an instant on the command line."""

from __future__ import annotations

from datetime import datetime

from centinela import times
from centinela.codec import require_plausible_time
from centinela.errors import CentinelaError, InvalidRecord


def parse_as_of(text: str | None, now: datetime) -> datetime | None:
    """The instant *text*; None where none was given.

    Raises:
        CentinelaError: It is not an instant, or no event can have that time.
    """
    if text is None:
        return None
    try:
        instant = times.parse_instant(text)
        require_plausible_time(instant, now, "as of")
    except ValueError as error:
        raise CentinelaError(f"--as-of {error}") from error
    except InvalidRecord as error:
        raise CentinelaError(f"--as-of {text}: {error.detail}") from error
    return instant
