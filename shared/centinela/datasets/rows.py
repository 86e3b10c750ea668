"""Turns the rows of a file into transactions, and rejects the others with a reason."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as compute
from numpy.typing import NDArray

from centinela.codec import FUTURE_TOLERANCE
from centinela.datasets.columns import NEVER, Transactions
from centinela.datasets.files import Batch, UnreadableFile
from centinela.datasets.mapping import Mapping, TimeRule
from centinela.times import series_to_ms, to_ms

ID_LENGTH = 128
AMOUNT_LIMIT = 1e9
_ZONE = r"(?:[Zz]|[+-]\d{2}:?\d{2})$"
_UNIT_MS = {"s": 1_000.0, "ms": 1.0}
_TRUE, _FALSE = {"1", "1.0", "true", "t", "yes"}, {"0", "0.0", "false", "f", "no"}


@dataclass(frozen=True)
class LabelRule:
    """Which labels are reported, and how long after the transaction; none if ``delay`` is None."""

    delay: timedelta | None = timedelta(days=7)
    genuine: bool = False


@dataclass(frozen=True)
class Reject:
    """A rejected row: its number in the file, the reason, and its values."""

    row: int
    reason: str
    detail: str
    values: dict[str, Any]


class _Problems:
    """The first problem of each row."""

    def __init__(self, count: int) -> None:
        self.bad = np.zeros(count, dtype=bool)
        self.first: dict[int, tuple[str, str]] = {}

    def add(self, mask: NDArray[np.bool_], reason: str, detail: str) -> None:
        for index in np.flatnonzero(mask & ~self.bad):
            self.first[int(index)] = (reason, detail)
        self.bad |= mask


def to_transactions(
    batch: Batch, mapping: Mapping, labels: LabelRule, now: datetime
) -> tuple[Transactions, list[Reject]]:
    """The valid rows of *batch* as transactions, and the rejected ones.

    Args:
        now: Times more than a day later than this are rejected, as in the stream.

    Raises:
        UnreadableFile: The type of a column cannot be converted to its field (a list as an amount).
    """
    try:
        return _to_transactions(batch, mapping, labels, now)
    except pa.ArrowException as error:
        raise UnreadableFile(f"the type of a column does not fit its field: {error}") from error


def _to_transactions(
    batch: Batch, mapping: Mapping, labels: LabelRule, now: datetime
) -> tuple[Transactions, list[Reject]]:
    table, numbers = batch.table, batch.numbers
    problems = _Problems(table.num_rows)

    def column(field: Any) -> pa.Array | None:
        name = mapping.column(field)
        return None if name is None else table.column(name)

    ids = _ids(column("transaction_id"), "transaction_id", problems, required=True)
    prefix = mapping.id_prefix
    ids = np.array(
        (
            [prefix + i if i is not None else None for i in ids]
            if ids is not None
            else [f"{prefix}{n:09d}" for n in numbers]
        ),
        dtype=object,
    )
    occurred_ms = _times(table.column(mapping.column("occurred_at")), mapping.time, problems)
    problems.add(
        occurred_ms > to_ms(now + FUTURE_TOLERANCE),
        "time_in_future",
        "occurred_at: more than a day ahead",
    )
    amount = _numbers(table.column(mapping.column("amount")), "amount", problems)
    problems.add(~np.isfinite(amount), "invalid_field", "amount: missing or not finite")
    problems.add((amount < 0) | (amount > AMOUNT_LIMIT), "invalid_field", "amount: negative or above 1e9")
    names = tuple(mapping.attributes.values())
    attributes = np.empty((table.num_rows, len(names)))
    for index, (source, name) in enumerate(mapping.attributes.items()):
        attributes[:, index] = _numbers(table.column(source), f"attributes.{name}", problems)
        problems.add(np.isinf(attributes[:, index]), "invalid_field", f"attributes.{name}: not finite")
    user = _ids(column("user_id"), "user_id", problems)
    terminal = _ids(column("terminal_id"), "terminal_id", problems)
    fraud, labelled = _flags(column("is_fraud"), table.num_rows, problems)

    reported = np.full(table.num_rows, NEVER)
    if labels.delay is not None:
        chosen = labelled if labels.genuine else labelled & fraud
        reported[chosen] = occurred_ms[chosen] + int(labels.delay.total_seconds() * 1_000)
    good = ~problems.bad
    missing = np.full(table.num_rows, None, dtype=object)
    transactions = Transactions(
        transaction_id=ids[good],
        occurred_ms=occurred_ms[good],
        amount=amount[good],
        user_id=(user if user is not None else missing)[good],
        terminal_id=(terminal if terminal is not None else missing)[good],
        attribute_names=names,
        attributes=attributes[good],
        is_fraud=fraud[good],
        reported_ms=reported[good],
    )
    rejects = [
        Reject(
            int(numbers[index]),
            *problems.first[index],
            {name: _value(table.column(name)[index]) for name in mapping.required},
        )
        for index in sorted(problems.first)
    ]
    rejects += [Reject(row.row, "malformed_row", row.detail, {"text": row.text}) for row in batch.malformed]
    return transactions, rejects


def _value(cell: pa.Scalar) -> Any:
    """The value of *cell* for the dead letter of its row; a time outside the range of ``datetime`` as its number."""
    try:
        return cell.as_py()
    except (OverflowError, ValueError):
        return getattr(cell, "value", None)


def _ids(
    column: pa.Array | None, field: str, problems: _Problems, required: bool = False
) -> NDArray[np.object_] | None:
    if column is None:
        return None
    if (
        pa.types.is_floating(column.type)
        and compute.all(compute.equal(column, compute.floor(column))).as_py() is not False
    ):
        with suppress(pa.ArrowInvalid):  # larger than an integer: left as it is
            column = column.cast(pa.int64())
    ids = np.array(column.cast(pa.string()).to_pylist(), dtype=object)
    lengths = np.array([0 if i is None else len(i) for i in ids])
    if required:
        problems.add(lengths == 0, "invalid_field", f"{field}: missing")
    problems.add(lengths > ID_LENGTH, "invalid_field", f"{field}: longer than {ID_LENGTH} characters")
    return ids


def _numbers(column: pa.Array, field: str, problems: _Problems) -> NDArray[np.float64]:
    """Values as float64, NaN if missing; text that is not a number is a problem of its row."""
    try:
        values = column.cast(pa.float64())
    except pa.ArrowInvalid:
        parsed = [_number(text) for text in column.to_pylist()]
        problems.add(np.array([p is None for p in parsed]), "invalid_field", f"{field}: not a number")
        return np.array([np.nan if p is None else p for p in parsed])
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)


def _number(text: str | None) -> float | None:
    try:
        return np.nan if text is None else float(text)
    except ValueError:
        return None


def _times(column: pa.Array, rule: TimeRule, problems: _Problems) -> NDArray[np.int64]:
    if rule.unit:
        offset = _numbers(column, "occurred_at", problems)
        problems.add(~(np.abs(offset) < 1e15), "invalid_field", "occurred_at: missing or out of range")
        ms = np.where(problems.bad, 0, offset) * _UNIT_MS[rule.unit]
        return (to_ms(rule.base) + np.round(ms)).astype(np.int64)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        zoned = getattr(column.type, "tz", None) is not None
        series = pd.Series(column.cast(pa.timestamp("us", "UTC" if zoned else None)).to_pandas())
        times = series if zoned else _localized(series, rule)
    else:
        text = pd.Series(column.cast(pa.string()).to_pandas(), dtype=object)
        aware = text.str.contains(_ZONE, na=False)
        times = pd.Series(pd.NaT, index=text.index, dtype="datetime64[us, UTC]")
        if aware.any():
            times[aware] = pd.to_datetime(text[aware], format="ISO8601", errors="coerce", utc=True)
        if not aware.all():
            times[~aware] = _localized(pd.to_datetime(text[~aware], format="ISO8601", errors="coerce"), rule)
    problems.add(times.isna().to_numpy(), "invalid_field", "occurred_at: missing or not a time")
    return series_to_ms(times)


def _localized(naive: pd.Series[Any], rule: TimeRule) -> pd.Series[Any]:
    """Times without a zone, as times of the rule's; an hour that a clock shows twice counts as its later, one it skips
    moves on."""
    ambiguous: Any = np.zeros(len(naive), dtype=bool)
    times: pd.Series[Any] = naive.dt.tz_localize(
        rule.tz(), ambiguous=ambiguous, nonexistent="shift_forward"
    ).dt.tz_convert("UTC")
    return times


def _flags(column: pa.Array | None, count: int, problems: _Problems) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each row is fraud, and whether that is known."""
    if column is None:
        return np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    text = [value and value.strip().lower() for value in column.cast(pa.string()).to_pylist()]
    fraud = np.array([value in _TRUE for value in text], dtype=bool)
    missing = np.array([not value for value in text], dtype=bool)
    problems.add(
        np.array([bool(value) and value not in _TRUE | _FALSE for value in text], dtype=bool),
        "invalid_field",
        "is_fraud: neither 0 nor 1",
    )
    return fraud, ~missing
