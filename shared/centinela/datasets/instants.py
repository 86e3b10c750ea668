"""Times as people and programs write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as compute
from numpy.typing import NDArray

from centinela.datasets.mapping import UNIT_MS, MappingError, TimeRule
from centinela.datasets.numbers import NumberFormat, to_numbers
from centinela.datasets.problems import Mask, Problems
from centinela.datasets.table import UnreadableFile
from centinela.datasets.texts import to_text
from centinela.times import series_to_ms, to_ms

LATEST_MS = to_ms(datetime(9999, 12, 31, tzinfo=UTC))
_STANDARD = r"^\d{4}-\d{2}-\d{2}(?:[ T]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:\d{2})?)?$"
_ZONE = r"(?:Z|[+-]\d{2}:\d{2})$"
_REWRITES = (
    (r"^(\d{1,2})\.(\d{1,2})\.(\d{4})\b", r"\3-\2-\1"),  # 05.01.2026
    (r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})\b", r"\1-\2-\3"),  # 2026/01/05
    (r"^(\d{4})(\d{2})(\d{2})[Tt ]?(\d{2}):?(\d{2}):?(\d{2})(\D|$)", r"\1-\2-\3 \4:\5:\6\7"),  # 20260105T100000
    (r"^(\d{4})(\d{2})(\d{2})$", r"\1-\2-\3"),  # 20260105
    (r"^(\d{4})-(\d)-", r"\1-0\2-"),
    (r"^(\d{4}-\d{2})-(\d)\b", r"\1-0\2"),
    (r"^(\d{4}-\d{2}-\d{2})(?:[Tt]|,?\s+)(\d)", r"\1 \2"),
    (r"^(\S+ )(\d):", r"\10\2:"),
    (r"\[[A-Za-z_/+-]+\]$", ""),  # Java: +01:00[Europe/Madrid]
    (r"(\d)\s*(?:UTC|GMT|[Zz])$", r"\1Z"),  # BigQuery: 2026-01-05 10:00:00 UTC
    (r"(:\d{2}),(\d+)", r"\1.\2"),  # a decimal comma
    (r"(\.\d{9})\d+", r"\1"),
    (r"(:\d{2}(?:\.\d+)?)\s*([+-]\d{2})$", r"\1\2:00"),  # Postgres: +02
    (r"(:\d{2}(?:\.\d+)?)\s*([+-]\d{2}):?(\d{2})$", r"\1\2:\3"),
)
_NUMBER = r"^[+-]?\d+(?:[.,]\d+)?$"
_DAY_OR_MONTH = r"^\d{1,2}[/-]\d{1,2}[/-]\d{2,4}"
_ADVICE = {
    _NUMBER: "a number: set time.unit (and time.base) in the mapping",
    _DAY_OR_MONTH: "day or month first? Set time.format in the mapping, such as %d/%m/%Y %H:%M",
}


def require_readable(column: pa.Array, rule: TimeRule, name: str) -> None:
    """Check that the first values of the column *name* can be read by *rule* at all.

    Raises:
        MappingError: They cannot; says what to set.
    """
    if rule.unit or rule.format:
        return
    if _is_number(column.type):
        raise MappingError(f"column {name}: {_ADVICE[_NUMBER]}")
    if not pa.types.is_string(column.type):
        return
    text = _standard(compute.drop_null(column))
    for pattern, advice in _ADVICE.items():
        if len(text) and compute.all(compute.match_substring_regex(text, pattern)).as_py():
            raise MappingError(f"column {name} ({text[0].as_py()}): {advice}")


def to_instants(column: pa.Array, rule: TimeRule, numbers: NumberFormat, problems: Problems) -> NDArray[np.int64]:
    """Milliseconds since the epoch, rounded down; any value where the row has a problem."""
    if rule.unit:
        offset = to_numbers(column, "occurred_at", numbers, problems) * UNIT_MS[rule.unit]
        problems.invalid(~(np.abs(offset) < LATEST_MS), "occurred_at: missing or out of range")
        return to_ms(rule.base) + np.floor(np.where(problems.bad, 0, offset) + 0.0005).astype(np.int64)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return _stored(column, rule, problems)
    if pa.types.is_time(column.type) or pa.types.is_duration(column.type):
        raise UnreadableFile(f"the column of occurred_at holds {column.type}, not points in time")
    text = to_text(column, "occurred_at", problems)
    if not rule.format:
        text = _standard(text)
        if (stored := _as_stored(text)) is not None:
            return _stored(stored, rule, problems)
    times = _parsed(text, rule)
    missing = times.isna().to_numpy()
    if missing.any():
        _explain(text, missing, rule, problems)
    return np.where(missing, 0, series_to_ms(times))


def _stored(column: pa.Array, rule: TimeRule, problems: Problems) -> NDArray[np.int64]:
    """Times that are stored as such; by their integers, whose range is larger than that of any library's times."""
    kind = column.type
    unit = "ms" if pa.types.is_date64(kind) else "d" if pa.types.is_date32(kind) else kind.unit
    if pa.types.is_date(kind):
        column = column.cast(pa.int32() if unit == "d" else pa.int64())
    missing = np.asarray(compute.is_null(column).to_numpy(zero_copy_only=False))
    integers = compute.fill_null(column.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    per_ms = {"ns": 1_000_000, "us": 1_000}.get(unit, 1)
    factor = {"s": 1_000, "d": 86_400_000}.get(unit, 1)
    problems.invalid(missing, "occurred_at: missing")
    problems.invalid(np.abs(integers) > LATEST_MS * per_ms // factor, "occurred_at: out of range")
    ms: NDArray[np.int64] = np.where(problems.bad, 0, integers) * factor // per_ms
    if getattr(kind, "tz", None) is not None or rule.zone == "UTC":
        return ms
    return series_to_ms(_localized(pd.Series(ms.astype("datetime64[ms]")), rule))


def _as_stored(text: pa.Array) -> pa.Array | None:
    """*text* as timestamps, if all are times, and all have an offset or none has: much faster than ``_parsed``."""
    zoned = compute.match_substring_regex(text, _ZONE)
    if compute.any(zoned).as_py() and not compute.all(zoned).as_py():
        return None
    try:
        return text.cast(pa.timestamp("us", "UTC" if compute.any(zoned).as_py() else None))
    except pa.ArrowInvalid:
        return None


def _standard(text: pa.Array) -> pa.Array:
    """*text* in the spelling that ``_STANDARD`` describes, as far as it is a spelling of a time."""
    if compute.all(compute.match_substring_regex(text, _STANDARD)).as_py() is not False:
        return text
    for pattern, replacement in _REWRITES:
        text = compute.replace_substring_regex(text, pattern, replacement)
    return text


def _parsed(text: pa.Array, rule: TimeRule) -> pd.Series[Any]:
    """UTC times, NaT for what is none."""
    series = pd.Series(text.to_pandas(), dtype=object)
    if rule.format:
        zoned = "%z" in rule.format
        times = pd.to_datetime(series, format=rule.format, errors="coerce", utc=zoned)
        return times if zoned else _localized(times, rule)
    series = series.where(series.str.contains(_STANDARD, na=False), None)
    aware = series.str.contains(_ZONE, na=False)
    times = pd.Series(pd.NaT, index=series.index, dtype="datetime64[ns, UTC]")
    if aware.any():
        times[aware] = pd.to_datetime(series[aware], format="ISO8601", errors="coerce", utc=True)
    if not aware.all():
        times[~aware] = _localized(pd.to_datetime(series[~aware], format="ISO8601", errors="coerce"), rule)
    return times


def _localized(naive: pd.Series[Any], rule: TimeRule) -> pd.Series[Any]:
    """Times without a zone, as times of the rule's; an hour that a clock shows twice counts as its later, one it skips
    moves on."""
    ambiguous: Any = np.zeros(len(naive), dtype=bool)
    times: pd.Series[Any] = naive.dt.tz_localize(
        rule.tz(), ambiguous=ambiguous, nonexistent="shift_forward"
    ).dt.tz_convert("UTC")
    return times


def _explain(text: pa.Array, missing: Mask, rule: TimeRule, problems: Problems) -> None:
    values = [value or "" for value in text.to_pylist()]
    problems.invalid(np.array([not value for value in values]), "occurred_at: missing")
    if rule.format:
        problems.invalid(missing, f"occurred_at: not a time as in {rule.format}")
        return
    for pattern, advice in _ADVICE.items():
        found = np.array([bool(re.search(pattern, value)) for value in values])
        problems.invalid(missing & found, f"occurred_at: {advice}")
    years = np.array([int(value[:4]) if value[:4].isdigit() else 2000 for value in values])
    problems.add(missing & (years > 2200), "time_in_future", "occurred_at: more than a day ahead")
    problems.add(missing & (years < 1700), "time_before_1970", "occurred_at: before 1970")
    problems.invalid(missing, "occurred_at: not a time, or one that needs time.format in the mapping")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
