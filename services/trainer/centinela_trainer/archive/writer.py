"""The archive: verdicts and labels from Kafka to Parquet, each exactly once for every reader.

Records are buffered and flushed by count or age. How far the archive reaches is kept next to its files
(``offsets.json``), not in the group's offsets, which run ahead by what is buffered: after a restart everything past
that point is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime

import pyarrow as pa
import structlog

from centinela.clock import Clock
from centinela.codec import Decoder, time_fault
from centinela.consuming.handler import Outcome, StatefulHandler
from centinela.deadletters.record import DeadLetter
from centinela.errors import InvalidRecord
from centinela.events import Event, LabelReported, TransactionScored
from centinela.kafka.port import Record, TopicIdentity, TopicPartition
from centinela_trainer import metrics
from centinela_trainer.archive.arrow_tables import Layouts, Row, label_tables, verdict_tables
from centinela_trainer.archive.store import LABELS, PREDICTIONS, ArchiveStore

Tables = Callable[[Sequence[Row]], Mapping[date, Sequence[pa.Table]]]
_log = structlog.get_logger(__name__)


class Archive(StatefulHandler):
    """Buffers records of both streams and writes them.

    Args:
        store: Where the files go; this process holds its lock.
        topics: Topic name to stream (``predictions`` or ``labels``).
        clock: For the age of the buffer, and times that are ahead of it.
        flush_rows: Flush when this many records are buffered.
        flush_s: Flush when the oldest buffered record is this old, seconds.
        identify: Returns the identity of a topic as it is now.
    """

    def __init__(
        self,
        store: ArchiveStore,
        topics: Mapping[str, str],
        clock: Clock,
        *,
        flush_rows: int,
        flush_s: float,
        identify: Callable[[str], TopicIdentity],
    ) -> None:
        self._store = store
        self._topics = dict(topics)
        self._clock = clock
        self._flush_rows = flush_rows
        self._flush_s = flush_s
        self._identify = identify
        self._decoders: dict[str, Decoder[TransactionScored] | Decoder[LabelReported]] = {
            PREDICTIONS: Decoder(TransactionScored),
            LABELS: Decoder(LabelReported),
        }
        self._tables: dict[str, Tables] = {PREDICTIONS: verdict_tables, LABELS: label_tables}
        self._layouts = Layouts()
        self._buffers: dict[TopicPartition, list[Row]] = {}
        self._next: dict[TopicPartition, int] = {}
        self._since: float | None = None

    @property
    def buffered(self) -> int:
        """Events waiting for the next flush."""
        return sum(map(len, self._buffers.values()))

    def position_known(self, partition: TopicPartition) -> int | None:
        same = self._store.is_of(partition.topic, self._identify(partition.topic).id)
        return self._store.offsets().get(partition) if same else None

    def on_assigned(self, partition: TopicPartition, committed: int | None) -> int | None:
        topic = partition.topic
        if committed is None or not self._store.knows_topic(topic):
            topic_id = self._identify(topic).id
            same = committed is not None or self._store.is_of(topic, topic_id)
            self._store.note_topic(topic, topic_id, same=same)
        return self._store.begin(self._topics[topic], partition, committed)

    def __call__(self, records: Sequence[Record]) -> Outcome:
        self._flush_if_due()
        return Outcome(dead_letters=self._add(records))

    def replay(self, records: Sequence[Record]) -> None:
        self._flush_if_due()
        self._add(records)

    def idle(self) -> Outcome | None:
        self._flush_if_due()
        return None

    def on_revoked(self, partition: TopicPartition) -> None:
        self.flush()

    def on_dropped(self, partition: TopicPartition) -> None:
        self._buffers.pop(partition, None)
        self._next.pop(partition, None)

    def _flush_if_due(self) -> None:
        if self._since is not None and (
            self.buffered >= self._flush_rows or self._clock.monotonic() - self._since >= self._flush_s
        ):
            self.flush()

    def _add(self, records: Sequence[Record]) -> list[DeadLetter]:
        dead: list[DeadLetter] = []
        by_partition: dict[TopicPartition, list[Record]] = {}
        for record in records:
            by_partition.setdefault(TopicPartition(record.topic, record.partition), []).append(record)
        for partition, part in by_partition.items():
            events = self._decoders[self._topics[partition.topic]].decode_many([record.value for record in part])
            buffer, now = self._buffers.setdefault(partition, []), self._clock.now()
            for record, event in zip(part, events, strict=True):
                try:
                    checked = self._checked(event, record.timestamp_ms, now)
                    buffer.append(Row(record.topic, record.partition, record.offset, checked))
                except InvalidRecord as invalid:
                    dead.append(DeadLetter.of(record, invalid))
            self._next[partition] = part[-1].offset + 1
        if self._since is None and records:
            self._since = self._clock.monotonic()
        metrics.ARCHIVE_BUFFERED.set(self.buffered)
        return dead

    def _checked(
        self, event: Event | InvalidRecord, timestamp_ms: int, now: datetime
    ) -> TransactionScored | LabelReported:
        if isinstance(event, InvalidRecord):
            raise event
        if (fault := time_fault(event, timestamp_ms, now)) is not None:
            raise fault
        if isinstance(event, TransactionScored):
            self._layouts.of(event)
            return event
        assert isinstance(event, LabelReported)
        return event

    def flush(self) -> None:
        """Write everything buffered to the disk, then record how far the archive reaches.

        Raises:
            DependencyUnavailable: The disk refuses. The buffer stays, and the next flush writes the same files again.
        """
        if self._since is None:
            return
        started = self._clock.monotonic()
        for partition, rows in self._buffers.items():
            if rows:
                stream = self._topics[partition.topic]
                tables = self._tables[stream](rows)
                size = self._store.write(stream, partition, rows[0].offset, rows[-1].offset, tables)
                metrics.ARCHIVED_RECORDS.labels(stream).inc(len(rows))
                metrics.ARCHIVED_BYTES.labels(stream).inc(size)
                metrics.ARCHIVE_FILES.labels(stream).inc(len(tables))
        self._store.save_offsets(self._next)
        count, partitions = self.buffered, len(self._next)
        self._buffers = {}
        self._next = {}
        self._since = None
        metrics.ARCHIVE_BUFFERED.set(0)
        duration = self._clock.monotonic() - started
        metrics.ARCHIVE_FLUSH_DURATION.observe(duration)
        _log.info("archive.flushed", records=count, partitions=partitions, duration_s=round(duration, 3))
