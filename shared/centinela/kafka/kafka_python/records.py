"""Makes kafka-python read records whose headers have names that are not UTF-8; see ``header_names``."""

from __future__ import annotations

from typing import Any

from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch

from centinela.kafka.header_names import TolerantBuffer


class _Batch(DefaultRecordBatch):  # type: ignore[misc]
    _buffer: bytearray

    def _read_msg(self, *args: Any) -> Any:
        try:
            return super()._read_msg(*args)
        except UnicodeDecodeError:
            self._buffer = TolerantBuffer(self._buffer)
            return super()._read_msg(*args)


def read_any_header_name() -> None:
    """From now on, in the whole process."""
    memory_records.DefaultRecordBatch = _Batch
