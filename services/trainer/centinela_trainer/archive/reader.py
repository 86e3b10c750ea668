"""Reads the archive's Parquet files into the tables that ``dataset.assemble`` takes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from centinela.errors import DependencyUnavailable
from centinela.times import from_us, to_us
from centinela_trainer.archive.store import LABELS, PREDICTIONS, ArchiveStore

_PURCHASES = " AND coalesce(kind, 'purchase') = 'purchase'"
"""Files of earlier releases lack the column."""


class ArchiveReader:
    """Point-in-time reads of the archive under *root*. Each transaction may still appear more than once."""

    def __init__(self, root: Path) -> None:
        self.store = ArchiveStore(root)

    def newest(self) -> datetime | None:
        """The greatest event time among the verdicts; None where there are none."""
        for path in reversed(self._day_folders()):
            [(newest,)] = _query(
                f"SELECT max(epoch_us(occurred_at)) FROM {_files(sorted(path.glob('*.parquet')))}"
            ).fetchall()
            if newest is not None:
                return from_us(newest)
        return None

    def feature_set(self, as_of: datetime) -> str | None:
        """The layout of the newest verdict up to *as_of*; None where there is none."""
        for path in reversed(self._day_folders()):
            files = sorted(path.glob("*.parquet"))
            query = (
                f"SELECT feature_set FROM {_files(files)} WHERE epoch_us(occurred_at) <= $1 ORDER BY occurred_at DESC,"
                " transaction_id LIMIT 1"
            )
            for (feature_set,) in _query(query, to_us(as_of)).fetchall() if files else ():
                return str(feature_set)
        return None

    def predictions(self, names: Sequence[str], start: datetime, end: datetime) -> pa.Table:
        """Verdicts on purchases with *start* <= event time <= *end*: ``transaction_id``, ``user_id``, ``occurred_us``,
        *names*.

        Features that no file holds are left out.
        """
        files = self.store.files(PREDICTIONS, start.astimezone(UTC).date(), end.astimezone(UTC).date())
        if not files:
            return pa.table(
                {
                    "transaction_id": pa.array([], pa.string()),
                    "user_id": pa.array([], pa.string()),
                    "occurred_us": pa.array([], pa.int64()),
                }
            )
        source = _files(files)
        present = set(_query(f"SELECT * FROM {source} LIMIT 0").columns)
        columns = ", ".join('"' + name.replace('"', '""') + '"' for name in names if name in present)
        return _query(
            f"SELECT transaction_id, user_id, epoch_us(occurred_at) AS occurred_us, {columns} FROM {source} "
            f"WHERE epoch_us(occurred_at) BETWEEN $1 AND $2{_PURCHASES if 'kind' in present else ''}",
            to_us(start),
            to_us(end),
        ).to_arrow_table()

    def labels(self, start: datetime, as_of: datetime) -> pa.Table:
        """Labels on transactions from *start* on, reported up to *as_of*: ``transaction_id``, ``is_fraud``,
        ``reported_us``."""
        files = self.store.files(LABELS, start.astimezone(UTC).date(), as_of.astimezone(UTC).date())
        if not files:
            return pa.table(
                {
                    "transaction_id": pa.array([], pa.string()),
                    "is_fraud": pa.array([], pa.bool_()),
                    "reported_us": pa.array([], pa.int64()),
                }
            )
        return _query(
            f"SELECT transaction_id, is_fraud, epoch_us(reported_at) AS reported_us FROM {_files(files)} "
            "WHERE epoch_us(reported_at) <= $1",
            to_us(as_of),
        ).to_arrow_table()

    def _day_folders(self) -> list[Path]:
        return sorted({path.parent for path in self.store.files(PREDICTIONS)})


def _files(paths: Sequence[Path]) -> str:
    quoted = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{quoted}], union_by_name=true, hive_partitioning=false)"


def _query(sql: str, *values: int) -> duckdb.DuckDBPyRelation:
    try:
        relation = duckdb.sql(sql, params=list(values))
    except duckdb.IOException as error:
        raise DependencyUnavailable(f"the archive changed while it was read: {error}", dependency="archive") from error
    assert relation is not None, "a SELECT gives a relation"
    return relation
