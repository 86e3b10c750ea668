"""Makes aiokafka, on which Faust reads, read records whose headers have names that are not UTF-8; see
``centinela.kafka.header_names``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record import default_records, memory_records

from centinela.kafka.header_names import TolerantBuffer


class _Batch:
    """A batch as aiokafka's compiled decoder reads it or, where that fails at a name, the one in Python, which takes
    ten times as long."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._batch = default_records.DefaultRecordBatch(buffer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except UnicodeDecodeError:
            return iter(_TolerantBatch(self._buffer))

    def __next__(self) -> Any:
        return next(self._batch)


class _TolerantBatch(default_records._DefaultRecordBatchPy):  # type: ignore[misc]
    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = TolerantBuffer(self._buffer)


def read_any_header_name() -> None:
    """From now on, in the whole process."""
    memory_records.DefaultRecordBatch = _Batch
    fetcher.MemoryRecords = memory_records._MemoryRecordsPy
