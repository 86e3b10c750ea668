"""Transactions in the order of time, sorted on the disk by DuckDB where they do not fit into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from centinela.datasets.columns import Transactions
from centinela.datasets.table import BATCH_ROWS
from centinela.errors import CentinelaError

_MEMORY = "1GB"
_FIELDS = {
    "transaction_id": pa.string(),
    "occurred_ms": pa.int64(),
    "user_id": pa.string(),
    "terminal_id": pa.string(),
    "amount": pa.float64(),
    "currency": pa.string(),
    "kind": pa.string(),
    "is_fraud": pa.bool_(),
    "reported_ms": pa.int64(),
}


def in_time_order(parts: Iterable[Transactions], work: Path) -> Iterator[Transactions]:
    """All of *parts* by time; those of one time stay in their order.

    Args:
        work: An empty folder for what does not fit into memory; about as large as the file.

    Raises:
        CentinelaError: The disk is full.
    """
    staged = work / "transactions.parquet"
    names: tuple[str, ...] = ()
    writer: parquet.ParquetWriter | None = None
    try:
        for part in parts:
            names = part.attribute_names
            table = _table(part)
            writer = writer or parquet.ParquetWriter(staged, table.schema, compression="zstd")
            writer.write_table(table)
        if writer is None:
            return
        writer.close()
        with duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": str(work)}) as database:
            rows = database.read_parquet(str(staged), file_row_number=True).order("occurred_ms, file_row_number")
            for batch in rows.to_arrow_reader(BATCH_ROWS):
                yield _transactions(batch, names)
    except (OSError, duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise CentinelaError(f"the rows could not be sorted in {work}: {error}") from error


def _table(part: Transactions) -> pa.Table:
    fields = {name: pa.array(getattr(part, name), kind) for name, kind in _FIELDS.items()}
    attributes = {_attribute(at): pa.array(part.attributes[:, at]) for at in range(len(part.attribute_names))}
    return pa.table(fields | attributes)


def _transactions(batch: pa.RecordBatch, names: tuple[str, ...]) -> Transactions:
    def column(name: str) -> NDArray[Any]:
        return np.asarray(batch.column(name).to_numpy(zero_copy_only=False))

    attributes = [column(_attribute(at)) for at in range(len(names))]
    return Transactions(
        **{name: column(name) for name in _FIELDS},
        attribute_names=names,
        attributes=np.column_stack(attributes) if attributes else np.empty((batch.num_rows, 0)),
    )


def _attribute(at: int) -> str:
    """Attributes by position: their names are anybody's."""
    return f"attribute_{at}"
