"""Feast's sqlite online store, respecting event time: an older value is never written, an expired one never read.

Feast's tables are unchanged. One more table has each entity's event time to the microsecond (Feast's own column has
seconds); it is written in the same sqlite transaction as the values.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig, _table_id
from pydantic import Field

from centinela.featurestore import metrics
from centinela.featurestore.expiring import ExpiringReads, Rows, TtlClock, reaching, ttl_clock_of_environment
from centinela.featurestore.instants import microseconds, newest_of_each
from centinela.times import from_us

Write = tuple[Any, dict[str, Any], datetime, datetime | None]
_NEWEST = b""
_AT_ONCE = 1_000
_SCHEMA = """CREATE TABLE IF NOT EXISTS centinela_event_times
(view TEXT, entity_key BLOB, event_us INTEGER NOT NULL, PRIMARY KEY (view, entity_key)) WITHOUT ROWID"""
_KEEP = """INSERT INTO centinela_event_times VALUES (?, ?, ?) ON CONFLICT (view, entity_key)
DO UPDATE SET event_us = excluded.event_us WHERE excluded.event_us >= event_us"""


class EventTimeSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """Configuration in ``feature_store.yaml``: ``path`` of the file, and ``ttl_clock`` (see ``ExpiringReads``)."""

    type: Literal["centinela.featurestore.sqlite.EventTimeSqliteOnlineStore"] = (
        "centinela.featurestore.sqlite.EventTimeSqliteOnlineStore"  # type: ignore[assignment]
    )
    ttl_clock: TtlClock = Field(default_factory=ttl_clock_of_environment, validate_default=True)


class EventTimeSqliteOnlineStore(ExpiringReads, SqliteOnlineStore):
    """One file, in WAL mode: one process writes while others read."""

    def online_write_batch(
        self, config: Any, table: Any, data: list[Write], progress: Callable[[int], Any] | None
    ) -> None:
        """Write each entity's newest row of *data*, unless a newer one is stored.

        Raises:
            DependencyUnavailable: The file stays locked, or the disk refuses.
        """
        with reaching(sqlite3.OperationalError):
            for first in range(0, len(data), _AT_ONCE):
                self._write(config, table, data[first : first + _AT_ONCE])
        if progress:
            progress(len(data))

    def newest_us(self, config: Any, table: Any) -> int:
        return self._times(config, table, [_NEWEST]).get(_NEWEST, 0)

    def exact_times(self, config: Any, table: Any, entity_keys: list[Any], rows: Rows) -> Rows:
        keys = [_key(config, entity_key) for entity_key in entity_keys]
        times = self._times(config, table, keys)
        return [
            (from_us(times[key]) if values is not None and key in times else at, values)
            for key, (at, values) in zip(keys, rows, strict=True)
        ]

    def update(
        self,
        config: Any,
        tables_to_delete: Sequence[Any],
        tables_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
        partial: bool,
    ) -> None:
        """Make and drop tables as Feast does; a dropped view's event times go with it."""
        with reaching(sqlite3.OperationalError):
            connection = self._get_conn(config)
            super().update(config, tables_to_delete, tables_to_keep, entities_to_delete, entities_to_keep, partial)
            with connection:
                for table in tables_to_delete:
                    connection.execute("DELETE FROM centinela_event_times WHERE view = ?", (_view(config, table),))

    def _write(self, config: Any, table: Any, data: list[Write]) -> None:
        view = _view(config, table)
        newest = newest_of_each((_key(config, row[0]), microseconds(row[2]), row) for row in data)
        greatest = max(at for at, _ in newest.values())
        connection = self._get_conn(config)
        with _transaction(connection):
            stored = self._times(config, table, list(newest))
            taken = {key: (at, row) for key, (at, row) in newest.items() if at >= stored.get(key, 0)}
            connection.executemany(_KEEP, [(view, key, at) for key, (at, _) in taken.items()])
            connection.execute(_KEEP, (view, _NEWEST, greatest))
            super().online_write_batch(config, table, [row for _, row in taken.values()], None)
        metrics.count(table.name, len(data), len(newest), len(taken), greatest)

    def _times(self, config: Any, table: Any, keys: list[bytes]) -> dict[bytes, int]:
        connection, view = self._get_conn(config), _view(config, table)
        times: dict[bytes, int] = {}
        for first in range(0, len(keys), _AT_ONCE):
            batch = keys[first : first + _AT_ONCE]
            marks = ",".join("?" * len(batch))
            query = f"SELECT entity_key, event_us FROM centinela_event_times WHERE view = ? AND entity_key IN ({marks})"  # noqa: S608
            times.update(connection.execute(query, (view, *batch)).fetchall())
        return times

    def _get_conn(self, config: Any) -> sqlite3.Connection:
        is_new = not self._conn
        if is_new:
            Path(self._get_db_path(config)).parent.mkdir(parents=True, exist_ok=True)
        connection: sqlite3.Connection = super()._get_conn(config)
        if is_new:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_SCHEMA)
        return connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A write transaction. Feast commits inside it; what is still open after that is committed or rolled back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise
    if connection.in_transaction:
        connection.commit()


def _view(config: Any, table: Any) -> str:
    name: str = _table_id(config.project, table, config.registry.enable_online_feature_view_versioning)
    return name


def _key(config: Any, entity_key: Any) -> bytes:
    key: bytes = serialize_entity_key(
        entity_key, entity_key_serialization_version=config.entity_key_serialization_version
    )
    return key
