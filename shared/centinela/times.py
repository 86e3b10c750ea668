"""Instants as integers since 1970-01-01 UTC, and back.

Milliseconds are rounded down everywhere: features, panes and labels of one transaction then agree on its time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
DAY_US: Final = 1_000 * DAY_MS
LONGEST_DAYS: Final = 36_500
"""Limit of every option and setting in days: no date is out of range after it."""
_DATE_WITH_Z = re.compile(r"^(\d{4}-?\d{2}-?\d{2})Z$")
_MILLISECOND = timedelta(milliseconds=1)
_MICROSECOND = timedelta(microseconds=1)


def parse_instant(text: str) -> datetime:
    """The instant that a person wrote: ISO 8601, a date for its first moment; UTC where it names no zone.

    Raises:
        ValueError: It is not one, or arithmetic cannot hold it; the message says what to write.
    """
    try:
        instant = datetime.fromisoformat(_DATE_WITH_Z.sub(r"\1", text.upper()))
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is not a time: write 2025-02-07 or 2025-02-07T12:00:00+01:00; UTC where it names no zone"
        ) from None


def to_ms(instant: datetime) -> int:
    """Milliseconds of an aware *instant*, rounded down."""
    return (instant - EPOCH) // _MILLISECOND


def to_us(instant: datetime) -> int:
    """Microseconds of an aware *instant*."""
    return (instant - EPOCH) // _MICROSECOND


def from_ms(milliseconds: int) -> datetime:
    """The aware instant of *milliseconds*. Raises OverflowError outside the years 1 to 9999."""
    return EPOCH + timedelta(milliseconds=milliseconds)


def from_us(microseconds: int) -> datetime:
    """The aware instant of *microseconds*. Raises OverflowError outside the years 1 to 9999."""
    return EPOCH + timedelta(microseconds=microseconds)


def date_of_day(days: int) -> date:
    """The UTC date that is *days* after 1970-01-01."""
    return EPOCH.date() + timedelta(days=days)


def days_to_ms(days: float) -> int:
    """A span of *days* in milliseconds, rounded."""
    return round(days * DAY_MS)


def to_ms_array(instants: Iterable[datetime]) -> NDArray[np.int64]:
    """``to_ms`` of each, shape (n,), for years 1970 to 2100.

    A double holds present-day seconds to 2.4e-7, so that adding half a microsecond rounds down correctly.
    """
    seconds = np.array([instant.timestamp() for instant in instants], dtype=np.float64)
    return np.floor(seconds * 1000.0 + 0.0005).astype(np.int64)


def to_us_array(instants: Iterable[datetime]) -> NDArray[np.int64]:
    """``to_us`` of each, shape (n,)."""
    return np.array([(instant - EPOCH) // _MICROSECOND for instant in instants], dtype=np.int64)


def series_to_ms(instants: pd.Series) -> NDArray[np.int64]:
    """``to_ms`` of an aware series, shape (n,); any value where an instant is missing."""
    return _utc(instants).astype("datetime64[ms]").astype(np.int64)


def series_to_us(instants: pd.Series) -> NDArray[np.int64]:
    """``to_us`` of an aware series, shape (n,); any value where an instant is missing."""
    return _utc(instants).astype("datetime64[us]").astype(np.int64)


def index_from_ms(milliseconds: NDArray[np.int64]) -> pd.DatetimeIndex:
    """``from_ms`` of each, as an aware index, shape (n,)."""
    import pandas as pd

    return pd.DatetimeIndex(milliseconds.astype("datetime64[ms]")).tz_localize("UTC")


def _utc(instants: pd.Series) -> NDArray[np.datetime64]:
    naive: NDArray[np.datetime64] = instants.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    return naive
