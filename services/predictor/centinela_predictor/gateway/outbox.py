"""The verdicts that Kafka has not acknowledged yet: one SQLite file, written before the answer."""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from centinela.clock import Clock
from centinela.errors import CentinelaError, DependencyUnavailable
from centinela.kafka.port import Outgoing

_SCHEMA = """CREATE TABLE IF NOT EXISTS outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, transaction_id TEXT NOT NULL UNIQUE, record BLOB NOT NULL,
    crc INTEGER NOT NULL, written_at REAL NOT NULL)"""
_SCHEMA_REFUSED = (
    "CREATE TABLE IF NOT EXISTS refused (sequence INTEGER PRIMARY KEY, transaction_id TEXT NOT NULL, record BLOB NOT"
    " NULL, reason TEXT NOT NULL)"
)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Outgoing)


class OutboxFull(DependencyUnavailable):
    """The outbox accepts no more records: Kafka has been unavailable for too long, or the disk refuses writes."""


class OutboxUnusable(CentinelaError):
    """The file cannot be opened, or is damaged. It holds verdicts that were answered: a person must look at it."""


class StoredRecord(NamedTuple):
    """A record that waits for Kafka."""

    sequence: int
    transaction_id: str
    outgoing: Outgoing
    size: int


class Outbox:
    """Records in the order in which they were appended. Thread-safe; one process at a time.

    Once ``append`` has returned, its records survive a killed process and a power failure.

    Args:
        max_records: Most records kept.
        max_bytes: Most bytes of records kept.

    Raises:
        OutboxUnusable: The file is damaged, or another process has it.
    """

    def __init__(self, path: Path, clock: Clock, *, max_records: int, max_bytes: int) -> None:
        self._path = path
        self._clock = clock
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._count = 0
        self._bytes = 0
        self.changed = threading.Event()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.name != ":memory:":
                path.touch(mode=0o600)
            self._database = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
            for statement in (
                "PRAGMA locking_mode = EXCLUSIVE",
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL",
                "BEGIN IMMEDIATE",
                _SCHEMA,
                _SCHEMA_REFUSED,
                "COMMIT",
            ):
                self._database.execute(statement)
            [[sound]] = self._database.execute("PRAGMA quick_check(1)")
            [[self._count, self._bytes]] = self._database.execute(
                "SELECT count(*), coalesce(sum(length(record)), 0) FROM outbox"
            )
        except (OSError, sqlite3.Error) as error:
            raise OutboxUnusable(f"the outbox {path} cannot be used: {error}") from error
        if sound != "ok":
            raise OutboxUnusable(
                f"the outbox {path} is damaged ({sound}): it holds verdicts that were answered and may not be in Kafka"
            )

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """Total size of the records."""
        return self._bytes

    @property
    def oldest_s(self) -> float:
        """Age of the oldest record in seconds; 0.0 where there is none."""
        with self._lock:
            [[at]] = self._database.execute("SELECT min(written_at) FROM outbox") if self._count else [[None]]
        return 0.0 if at is None else max(0.0, self._clock.now().timestamp() - at)

    def has_room(self, count: int) -> bool:
        """Whether *count* more records fit, by their number and by the bytes so far."""
        return self._count + count <= self._max_records and self._bytes < self._max_bytes

    def append(self, records: Sequence[tuple[str, Outgoing]]) -> None:
        """Keep *records* (with their transaction ids), all or none; they are on disk when this returns.

        Raises:
            OutboxFull: There is no room, or the disk refuses the write.
        """
        now = self._clock.now().timestamp()
        rows = [
            (transaction_id, packed, zlib.crc32(packed), now)
            for transaction_id, record in records
            for packed in (_encoder.encode(record),)
        ]
        size = sum(len(row[1]) for row in rows)
        with self._lock:
            if self._count + len(rows) > self._max_records or self._bytes + size > self._max_bytes:
                raise OutboxFull(
                    f"the outbox is full: {self._count} verdicts in {self._bytes} bytes wait for Kafka",
                    dependency="kafka",
                )
            with self._transaction():
                self._database.executemany(
                    "INSERT INTO outbox (transaction_id, record, crc, written_at) VALUES (?, ?, ?, ?)", rows
                )
            self._count += len(rows)
            self._bytes += size
        self.changed.set()

    def oldest(self, limit: int) -> list[StoredRecord]:
        """The first *limit* records, in order.

        Raises:
            OutboxUnusable: A record differs from what was written.
        """
        with self._lock:
            rows = self._database.execute(
                "SELECT sequence, transaction_id, record, crc FROM outbox ORDER BY sequence LIMIT ?", (limit,)
            ).fetchall()
        for sequence, transaction_id, packed, crc in rows:
            if zlib.crc32(packed) != crc:
                raise OutboxUnusable(f"record {sequence} ({transaction_id}) of the outbox {self._path} is damaged")
        return [
            StoredRecord(sequence, transaction_id, _decoder.decode(packed), len(packed))
            for sequence, transaction_id, packed, _ in rows
        ]

    def remove(self, stored: Sequence[StoredRecord]) -> None:
        """Remove records that Kafka has.

        Raises:
            OutboxFull: The disk refuses the write.
        """
        with self._lock:
            with self._transaction():
                self._delete(stored)
            self._count -= len(stored)
            self._bytes -= sum(row.size for row in stored)

    def set_aside(self, stored: StoredRecord, reason: str) -> None:
        """Move a record that Kafka will never take out of the others' way, into the table ``refused``.

        Raises:
            OutboxFull: The disk refuses the write.
        """
        with self._lock:
            with self._transaction():
                self._database.execute(
                    "INSERT INTO refused SELECT sequence, transaction_id, record, ? FROM outbox WHERE sequence = ?",
                    (reason, stored.sequence),
                )
                self._delete([stored])
            self._count -= 1
            self._bytes -= stored.size

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._database.close()
            self._count = 0
            self._bytes = 0

    def _delete(self, stored: Sequence[StoredRecord]) -> None:
        self._database.executemany("DELETE FROM outbox WHERE sequence = ?", [(row.sequence,) for row in stored])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise OutboxFull(f"the outbox {self._path} cannot be written: {error}", dependency="disk") from error
