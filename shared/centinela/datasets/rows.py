"""Turns the rows of a file into transactions, and rejects the others with a reason."""

from __future__ import annotations

from collections.abc import Mapping as Lookup
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from centinela.codec import FUTURE_TOLERANCE
from centinela.datasets.columns import NEVER, Transactions
from centinela.datasets.instants import require_readable, to_instants
from centinela.datasets.mapping import Mapping
from centinela.datasets.numbers import NumberFormat, find_format, to_numbers
from centinela.datasets.options import Decimal
from centinela.datasets.problems import Problems
from centinela.datasets.table import Batch, UnreadableFile
from centinela.datasets.texts import to_currencies, to_flags, to_ids, to_kinds
from centinela.times import to_ms

AMOUNT_LIMIT = 1e9
_FORMAT_ROWS = 1_000
Formats = Lookup[str, NumberFormat]
"""Column to the format of its numbers."""


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


def find_formats(batch: Batch, mapping: Mapping, decimal: Decimal | None) -> Formats:
    """How the columns of a file write their numbers, by its first rows.

    Args:
        decimal: The decimal sign that a person named, if any.

    Raises:
        MappingError: The times cannot be read by the mapping at all; says what to set.
    """
    time = mapping.column("occurred_at")
    assert time is not None
    first = batch.table.slice(0, _FORMAT_ROWS)
    require_readable(first.column(time), mapping.time, time)
    amount = mapping.column("amount")
    return {
        column: find_format(first.column(column), decimal, mapping.one_currency if column == amount else None)
        for column in mapping.numeric
        if column in first.schema.names
    }


def to_transactions(
    batch: Batch, mapping: Mapping, labels: LabelRule, now: datetime, formats: Formats
) -> tuple[Transactions, list[Reject]]:
    """The valid rows of *batch* as transactions, and the rejected ones.

    Args:
        now: Times more than a day later than this are rejected, as in the stream.
        formats: Of ``find_formats``, for the first batch of the same file.

    Raises:
        UnreadableFile: The type of a column cannot be converted to its field (a list as an amount).
    """
    try:
        return _to_transactions(batch, mapping, labels, now, formats)
    except pa.ArrowException as error:
        raise UnreadableFile(f"the type of a column does not fit its field: {error}") from error


def _to_transactions(
    batch: Batch, mapping: Mapping, labels: LabelRule, now: datetime, formats: Formats
) -> tuple[Transactions, list[Reject]]:
    table = batch.table
    problems = Problems(table.num_rows)

    def column(field: Any) -> pa.Array | None:
        name = mapping.column(field)
        return None if name is None else table.column(name)

    def numbers(name: str, label: str) -> Any:
        return to_numbers(table.column(name), label, formats[name], problems)

    ids = to_ids(column("transaction_id"), "transaction_id", problems, exact=mapping.exact_ids, required=True)
    occurred_ms = times_of(batch, mapping, formats, problems)
    problems.add(
        occurred_ms > to_ms(now + FUTURE_TOLERANCE),
        "time_in_future",
        "occurred_at: more than a day ahead",
    )
    problems.add(occurred_ms < 0, "time_before_1970", "occurred_at: before 1970")
    amount = numbers(mapping.column("amount") or "", "amount")
    problems.invalid(~np.isfinite(amount), "amount: missing or not finite")
    problems.invalid(amount < 0, "amount: negative; give a refund its amount, and map a column to kind")
    problems.invalid(amount > AMOUNT_LIMIT, "amount: above 1e9")
    currency = to_currencies(column("currency"), table.num_rows, mapping.usual_currency, problems)
    kind = to_kinds(column("kind"), table.num_rows, problems)
    names = tuple(mapping.attributes.values())
    attributes = np.empty((table.num_rows, len(names)))
    for index, (source, name) in enumerate(mapping.attributes.items()):
        attributes[:, index] = numbers(source, f"attributes.{name}")
        problems.invalid(np.isinf(attributes[:, index]), f"attributes.{name}: not finite")
    user = to_ids(column("user_id"), "user_id", problems, exact=mapping.exact_ids)
    terminal = to_ids(column("terminal_id"), "terminal_id", problems, exact=mapping.exact_ids)
    fraud, labelled = to_flags(column("is_fraud"), table.num_rows, problems)

    reported = np.full(table.num_rows, NEVER)
    if labels.delay is not None:
        chosen = labelled if labels.genuine else labelled & fraud
        reported[chosen] = occurred_ms[chosen] + int(labels.delay.total_seconds() * 1_000)
    good = ~problems.bad
    missing = np.full(table.num_rows, None, dtype=object)
    transactions = Transactions(
        transaction_id=_transaction_ids(batch, ids, mapping.id_prefix)[good],
        occurred_ms=occurred_ms[good],
        amount=amount[good],
        currency=currency[good],
        kind=kind[good],
        user_id=(user if user is not None else missing)[good],
        terminal_id=(terminal if terminal is not None else missing)[good],
        attribute_names=names,
        attributes=attributes[good],
        is_fraud=fraud[good],
        reported_ms=reported[good],
    )
    return transactions, _rejects(batch, mapping, problems)


def times_of(batch: Batch, mapping: Mapping, formats: Formats, problems: Problems) -> NDArray[np.int64]:
    """When each row of *batch* occurred, in milliseconds; any value where that is a problem of the row."""
    name = mapping.column("occurred_at") or ""
    return to_instants(batch.table.column(name), mapping.time, formats.get(name, NumberFormat()), problems)


def _transaction_ids(batch: Batch, ids: NDArray[np.object_] | None, prefix: str) -> NDArray[np.object_]:
    if ids is None:
        return np.array([f"{prefix}{number:09d}" for number in batch.numbers], dtype=object)
    return np.array([None if one is None else prefix + one for one in ids], dtype=object)


def _rejects(batch: Batch, mapping: Mapping, problems: Problems) -> list[Reject]:
    rejects = [
        Reject(
            int(batch.numbers[index]),
            *problems.first[index],
            {name: _value(batch.table.column(name)[index]) for name in mapping.required},
        )
        for index in sorted(problems.first)
    ]
    return rejects + [Reject(row.row, "malformed_row", row.detail, {"text": row.text}) for row in batch.malformed]


def _value(cell: pa.Scalar) -> Any:
    """The value of *cell* for the dead letter of its row; a time outside the range of ``datetime`` as its number."""
    try:
        return cell.as_py()
    except (OverflowError, ValueError):
        return getattr(cell, "value", None)
