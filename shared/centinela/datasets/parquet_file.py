"""Parquet files, with columns brought to types that a transaction's fields are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from centinela.datasets.containers import BROKEN
from centinela.datasets.table import BATCH_ROWS, Batch, TableFile, UnreadableFile


def open_parquet(path: Path) -> TableFile:
    """Open the Parquet file *path*. Raises UnreadableFile while it is read, if it is damaged."""
    file = parquet.ParquetFile(path, coerce_int96_timestamp_unit="us")
    schema = file.schema_arrow

    def batches(columns: Sequence[str]) -> Iterator[Batch]:
        selected = list(dict.fromkeys(columns))
        for name in selected:
            _require_flat(schema.field(name), path)
        at = 1
        try:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=selected, use_threads=False):
                table = pa.RecordBatch.from_arrays([_plain(batch.column(name)) for name in selected], selected)
                yield Batch(table, np.arange(at, at + table.num_rows))
                at += table.num_rows
        except BROKEN as error:
            raise UnreadableFile(f"{path} after row {at - 1}: {error}") from error

    return TableFile(schema.names, file.metadata.num_rows, batches, "Parquet")


def _require_flat(field: pa.Field, path: Path) -> None:
    if pa.types.is_struct(field.type):
        inner = ", ".join(f"{field.name}.{child.name}" for child in field.type)
        raise UnreadableFile(f"{path}: column {field.name} is nested ({inner}): write these as columns of their own")
    if pa.types.is_nested(field.type):
        raise UnreadableFile(f"{path}: column {field.name} is a {field.type}: write one value a row")


def _plain(column: pa.Array) -> pa.Array:
    """*column* without dictionary and extension types; UUIDs as text."""
    if isinstance(column, pa.ExtensionArray):
        uuid = column.type.extension_name == "arrow.uuid"
        column = pa.array([value and str(value) for value in column.to_pylist()]) if uuid else column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column
