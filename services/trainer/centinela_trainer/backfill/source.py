"""What a backfill reads: an archive, or files with a mapping. Sorted by DuckDB on the disk, handed out in slabs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from centinela.datasets.rows import LabelRule
from centinela.datasets.source import DataFiles
from centinela.errors import CentinelaError
from centinela.features.currency import Rates
from centinela_trainer.archive.store import LABELS, PREDICTIONS, ArchiveStore

SLAB_ROWS = 65_536
_MEMORY = "1GB"
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Slab:
    """Consecutive transactions in order of time and id, and every report on them in log order (``reported_ms``)."""

    transactions: pd.DataFrame
    reports: pd.DataFrame


class Staged:
    """Transactions (view ``verdicts``) and reports (view ``reports``) of *database*, each with a ``position`` in the
    order they came.

    ``attributes``: numeric columns of a transaction. ``repeated``: rows of an id that came before, left out.
    """

    def __init__(self, database: duckdb.DuckDBPyConnection, attributes: tuple[str, ...]) -> None:
        self._database = database
        self.attributes = attributes
        [(rows, self.rows)] = database.execute(
            "SELECT count(*), count(DISTINCT transaction_id) FROM verdicts"
        ).fetchall()
        self.repeated = rows - self.rows

    def slabs(self, rows: int = SLAB_ROWS) -> Iterator[Slab]:
        """The transactions, each id once, *rows* at a time."""
        database = self._database.cursor()
        batches = database.sql("""
            SELECT * EXCLUDE (position), make_timestamp_ms(occurred_ms) AS occurred_at FROM verdicts
            QUALIFY row_number() OVER (PARTITION BY transaction_id ORDER BY position) = 1
            ORDER BY occurred_ms, transaction_id""").to_arrow_reader(rows)
        for batch in batches:
            transactions = batch.to_pandas()
            transactions["occurred_at"] = transactions["occurred_at"].dt.tz_localize("UTC")
            yield Slab(transactions, self._reports(batch))

    def _reports(self, batch: pa.RecordBatch) -> pd.DataFrame:
        database = self._database.cursor()
        database.register(
            "batch",
            pa.table({"transaction_id": batch.column("transaction_id"), "occurred_ms": batch.column("occurred_ms")}),
        )
        reports: pd.DataFrame = database.sql(
            """SELECT transaction_id, is_fraud, batch.occurred_ms, reported_ms
            FROM reports JOIN batch USING (transaction_id)
                           ORDER BY position"""
        ).df()
        return reports


def open_archive(root: Path, work: Path) -> Staged:
    """The archive at *root*.

    Raises:
        CentinelaError: It holds no verdict.
    """
    store, database = ArchiveStore(root), _database(work)
    files = store.files(PREDICTIONS)
    if not files:
        raise CentinelaError(f"{root} holds no verdict")
    verdicts = database.read_parquet([str(path) for path in files], union_by_name=True, hive_partitioning=False)
    verdicts.create_view("archived")
    layouts = [row[0] for row in database.execute("SELECT DISTINCT feature_set FROM archived").fetchall()]
    present = frozenset(verdicts.columns)
    attributes = tuple(sorted({name for layout in layouts for name in _attributes(layout) if name in present}))
    columns = [
        duckdb.ColumnExpression(name)
        for name in ("transaction_id", "user_id", "terminal_id", "amount", "kind", *attributes)
        if name in present
    ]
    verdicts.select(*columns, duckdb.SQLExpression("epoch_ms(occurred_at) AS occurred_ms"), _position()).create_view(
        "verdicts"
    )
    labels = store.files(LABELS)
    if labels:
        database.read_parquet([str(path) for path in labels], union_by_name=True, hive_partitioning=False).select(
            duckdb.SQLExpression("transaction_id"),
            duckdb.SQLExpression("is_fraud"),
            duckdb.SQLExpression("epoch_ms(reported_at) AS reported_ms"),
            _position(),
        ).create_view("reports")
    else:
        database.execute(
            "CREATE TABLE reports (transaction_id VARCHAR, is_fraud BOOLEAN, reported_ms BIGINT, position BIGINT)"
        )
    return Staged(database, attributes)


def stage_files(
    files: DataFiles,
    label_delay: timedelta,
    rates: Rates,
    work: Path,
    now: datetime,
    progress: Progress,
    tell: Callable[[str], None],
) -> Staged:
    """The transactions of *files*, read by the code of ``centinela replay``.

    Args:
        label_delay: From a transaction to the report on it.
        rates: The base currency, which amounts are brought to.
        work: An empty folder for what does not fit into memory.
        progress: Called with the number of rows read so far.
        tell: Takes a line for people: rows that were left out.

    Raises:
        CentinelaError: A file is damaged, an amount has no rate, or no row is a transaction.
    """
    staged, done, rejected, rows = work / "transactions.parquet", 0, 0, 0
    names = tuple(files.mapping.attributes.values())
    schema = pa.schema(
        {
            "transaction_id": pa.string(),
            "user_id": pa.string(),
            "terminal_id": pa.string(),
            "occurred_ms": pa.int64(),
            "amount": pa.float64(),
            "kind": pa.string(),
            "position": pa.int64(),
            "is_fraud": pa.bool_(),
            "reported_ms": pa.int64(),
        }
        | dict.fromkeys(names, pa.float64())
    )
    with pq.ParquetWriter(staged, schema) as writer:
        for part in files.parts(LabelRule(label_delay, genuine=True), now):
            for reject in part.rejects[: max(0, 5 - rejected)]:
                tell(f"{part.file.name}, row {reject.row} left out: {reject.reason}: {reject.detail}")
            rejected += len(part.rejects)
            good = part.transactions
            columns = [
                good.transaction_id,
                good.user_id,
                good.terminal_id,
                good.occurred_ms,
                rates.all_to_base(good.amount, good.currency.tolist(), good.occurred_ms),
                good.kind,
                np.arange(rows, rows + len(good)),
                good.is_fraud,
                good.reported_ms,
                *good.attributes.T,
            ]
            writer.write_table(pa.table(columns, schema=schema))
            rows += len(good)
            done += part.rows
            progress(done)
    if rejected:
        tell(f"{rejected:,} rows left out")
    if not rows:
        raise CentinelaError(f"no row of {', '.join(str(file) for file in files.tables)} is a transaction")
    database = _database(work)
    relation = database.read_parquet(str(staged))
    relation.select(duckdb.StarExpression(exclude=["is_fraud", "reported_ms"])).create_view("verdicts")
    relation.filter("reported_ms >= 0").select("transaction_id", "is_fraud", "reported_ms", "position").create_view(
        "reports"
    )
    return Staged(database, names)


def is_archive(path: Path) -> bool:
    """Whether *path* is laid out as an archive."""
    return (path / PREDICTIONS).is_dir()


def _database(work: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": str(work)})


def _position() -> duckdb.Expression:
    return duckdb.SQLExpression('"partition"::BIGINT * (1::BIGINT << 48) + "offset" AS position')


def _attributes(feature_set: str) -> tuple[str, ...]:
    from centinela.features.layout import FeatureLayout

    return FeatureLayout.parse(feature_set).attributes
