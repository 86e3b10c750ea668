"""Events to Arrow columns, by event day: pure functions.

A verdict's served vector becomes one column per feature, named by its layout, followed by the record's own
columns (``VERDICT_COLUMNS``) and where it was read (``topic``, ``partition``, ``offset``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from centinela.errors import InvalidRecord
from centinela.events import LabelReported, TransactionScored
from centinela.features.layout import FeatureLayout
from centinela.times import DAY_US, date_of_day, to_us_array

INSTANT = pa.timestamp("us", tz="UTC")
TEXT, REAL, FLAG = pa.string(), pa.float64(), pa.bool_()

ORIGIN_COLUMNS: dict[str, pa.DataType] = {"topic": TEXT, "partition": pa.int32(), "offset": pa.int64()}
VERDICT_COLUMNS: dict[str, pa.DataType] = {
    "transaction_id": TEXT,
    "user_id": TEXT,
    "terminal_id": TEXT,
    "currency": TEXT,
    "kind": TEXT,
    "feature_currency": TEXT,
    "occurred_at": INSTANT,
    "scored_at": INSTANT,
    "decision": TEXT,
    "variant": TEXT,
    "origin": TEXT,
    "score": REAL,
    "is_fraud": FLAG,
    "threshold": REAL,
    "model_version": TEXT,
    "feature_set": TEXT,
}
LABEL_COLUMNS: dict[str, pa.DataType] = {
    "transaction_id": TEXT,
    "user_id": TEXT,
    "is_fraud": FLAG,
    "occurred_at": INSTANT,
    "reported_at": INSTANT,
    "source": TEXT,
}
RESERVED = frozenset(VERDICT_COLUMNS) | frozenset(ORIGIN_COLUMNS)


class Row(NamedTuple):
    """A decoded event and where it was read."""

    topic: str
    partition: int
    offset: int
    event: TransactionScored | LabelReported


class Layouts:
    """Parses each ``feature_set`` once. Raises ``InvalidRecord`` for one that the archive cannot hold."""

    def __init__(self) -> None:
        self._known: dict[str, FeatureLayout] = {}

    def of(self, event: TransactionScored) -> FeatureLayout:
        """The layout of *event*; its vector has as many values as the layout has names."""
        layout = self._known.get(event.feature_set)
        if layout is None:
            layout = self._known[event.feature_set] = self._parse(event.feature_set)
        if len(event.features) != 8 * len(layout.names):
            raise InvalidRecord(
                "invalid_field",
                f"features holds {len(event.features)} bytes; {event.feature_set!r} needs {8 * len(layout.names)}",
            )
        return layout

    @staticmethod
    def _parse(feature_set: str) -> FeatureLayout:
        try:
            layout = FeatureLayout.parse(feature_set)
        except ValueError as error:
            raise InvalidRecord("invalid_field", f"feature_set: {error}") from error
        if reserved := RESERVED.intersection(layout.names):
            raise InvalidRecord(
                "invalid_field", f"feature_set: {', '.join(sorted(reserved))} is a column of the archive itself"
            )
        return layout


def verdict_tables(rows: Sequence[Row]) -> dict[date, list[pa.Table]]:
    """Verdicts by event day: one table for each layout of the day, in the order read."""
    layouts = Layouts()
    by_layout: dict[str, list[Row]] = {}
    for row in rows:
        by_layout.setdefault(row.event.feature_set, []).append(row)  # type: ignore[union-attr]
    tables: dict[date, list[pa.Table]] = {}
    for part in by_layout.values():
        events: Any = [row.event for row in part]
        names = layouts.of(events[0]).names
        matrix = np.frombuffer(b"".join([event.features for event in events]), dtype="<f8").reshape(
            len(events), len(names)
        )
        features = {name: pa.array(column) for name, column in zip(names, np.ascontiguousarray(matrix.T), strict=True)}
        table = _table(part, VERDICT_COLUMNS, features)
        for day, piece in _by_day(table).items():
            tables.setdefault(day, []).append(piece)
    return tables


def label_tables(rows: Sequence[Row]) -> dict[date, list[pa.Table]]:
    """Labels by event day, in the order read."""
    return {day: [table] for day, table in _by_day(_table(rows, LABEL_COLUMNS, {})).items()} if rows else {}


def _table(rows: Sequence[Row], columns: Mapping[str, pa.DataType], features: Mapping[str, pa.Array]) -> pa.Table:
    arrays: dict[str, pa.Array] = {}
    for name, kind in columns.items():
        values = [getattr(row.event, name) for row in rows]
        if kind == INSTANT:
            arrays[name] = pa.array(to_us_array(values)).cast(INSTANT)
        else:
            arrays[name] = pa.array(values, type=kind)
    arrays |= features
    for name, kind in ORIGIN_COLUMNS.items():
        arrays[name] = pa.array([getattr(row, name) for row in rows], type=kind)
    return pa.table(arrays)


def _by_day(table: pa.Table) -> dict[date, pa.Table]:
    days = table["occurred_at"].cast(pa.int64()).to_numpy() // DAY_US
    order = np.argsort(days, kind="stable")
    found, starts = np.unique(days[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    return {
        date_of_day(int(day)): table.take(pa.array(order[start:end]))
        for day, start, end in zip(found, starts, ends, strict=True)
    }
