"""Every replica's own copy of the terminals' state, followed from ``terminal-activity`` and ``labels``."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import numpy as np
import structlog

from centinela.clock import Clock
from centinela.codec import Decoder, time_fault
from centinela.consuming.table_reader import GROWTH_CHECK_S, assign_more
from centinela.errors import DependencyUnavailable, InvalidRecord
from centinela.events import LabelReported
from centinela.features.keys import hash_ids
from centinela.features.layout import BASE_LAYOUT, FeatureLayout
from centinela.features.snapshots.format import SnapshotDamaged, pack, unpack
from centinela.features.snapshots.store import SnapshotStore
from centinela.features.state.terminals import TerminalState
from centinela.kafka.port import Consumer, Record, TopicPartition
from centinela.times import to_ms_array
from centinela.topics import FEATURE_PANES, LABELS, TERMINAL_ACTIVITY, TRANSACTIONS
from centinela_predictor.state.gate import Gate
from centinela_predictor.state.metrics import TERMINAL_RECORDS
from centinela_predictor.state.terminal_activity import Block, unpack_block

_log = structlog.get_logger(__name__)
_KIND = "terminals:3"
_BATCH = 5_000
_MOST_AT_ONCE = 50_000


class TerminalTable:
    """Terminal state and gate, fed with records of ``terminal-activity`` and ``labels`` in any order.

    Blocks and labels that cannot be read are counted and left out: ``labels`` has its dead letters from the archive.

    Args:
        partitions: All partitions of ``transactions``, for the gate; none where the gate is not used.
        layout: Which extra features there are.
    """

    def __init__(self, partitions: Sequence[int] = (), layout: FeatureLayout = BASE_LAYOUT) -> None:
        self.state = TerminalState(layout)
        self.gate = Gate(partitions)
        self._labels: Decoder[LabelReported] = Decoder(LabelReported)
        self._known: set[tuple[int, int]] = set()

    def apply(self, records: Sequence[Record], now: datetime) -> None:
        """Take records as they were read."""
        blocks = [r for r in records if r.topic == TERMINAL_ACTIVITY.name]
        if blocks:
            self._apply_blocks(blocks)
        if len(blocks) < len(records):
            self._apply_labels([r for r in records if r.topic == LABELS.name], now)

    def apply_own(self, partition: int, block: Block) -> None:
        """Take a block of this process that was just committed; when it is read, it is skipped."""
        self.gate.announce(partition, block.watermark, block.end)
        self.state.apply_activity(block.terminals, block.times, block.ids)
        self._known.add((block.writer, block.sequence))

    def _apply_blocks(self, records: Sequence[Record]) -> None:
        fresh: list[Block] = []
        for record in records:
            try:
                block = unpack_block(record.value)
            except InvalidRecord as invalid:
                TERMINAL_RECORDS.labels(record.topic, "refused").inc()
                _log.warning(
                    "block.refused",
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    detail=invalid.detail,
                )
                continue
            if (block.writer, block.sequence) in self._known:
                self._known.discard((block.writer, block.sequence))
                continue
            self.gate.announce(record.partition, block.watermark, block.end)
            if len(block.ids):
                fresh.append(block)
        TERMINAL_RECORDS.labels(TERMINAL_ACTIVITY.name, "applied").inc(len(records))
        if fresh:
            self.state.apply_activity(
                *(np.concatenate([getattr(b, name) for b in fresh]) for name in ("terminals", "times", "ids"))
            )

    def _apply_labels(self, records: Sequence[Record], now: datetime) -> None:
        labels = [
            label
            for record, label in zip(records, self._labels.decode_many([r.value for r in records]), strict=True)
            if not isinstance(label, InvalidRecord) and time_fault(label, record.timestamp_ms, now) is None
        ]
        TERMINAL_RECORDS.labels(LABELS.name, "applied").inc(len(labels))
        TERMINAL_RECORDS.labels(LABELS.name, "refused").inc(len(records) - len(labels))
        self.state.apply_labels(
            hash_ids([x.transaction_id for x in labels]),
            np.array([x.is_fraud for x in labels], dtype=bool),
            to_ms_array([x.occurred_at for x in labels]),
            to_ms_array([x.reported_at for x in labels]),
        )


class TerminalFeed:
    """Keeps a ``TerminalTable`` at the end of its topics, starting from a snapshot.

    Args:
        reader: A consumer without a group, for this feed alone.
        store_of: Returns the store of this replica's snapshots, once the topics can be identified.
        layout: Which extra features there are.
    """

    def __init__(
        self, reader: Consumer, store_of: Callable[[], SnapshotStore], clock: Clock, layout: FeatureLayout = BASE_LAYOUT
    ) -> None:
        self._reader = reader
        self._store_of = store_of
        self._clock = clock
        self._layout = layout
        self._store: SnapshotStore | None = None
        self._table: TerminalTable | None = None
        self._next: dict[TopicPartition, int] = {}
        self._targets: dict[TopicPartition, int] = {}
        self._pending: deque[tuple[int, Block]] = deque()
        self._saved = 0
        self._checked_at = clock.monotonic()

    @property
    def table(self) -> TerminalTable:
        """The table; ``advance`` must have succeeded once."""
        if self._table is None:
            raise DependencyUnavailable("the terminals' topics were not reached yet", dependency="kafka")
        return self._table

    @property
    def caught_up(self) -> bool:
        """Whether everything that was there at the start was read."""
        return self._table is not None and not self._targets

    def advance(self, patience_s: float = 1.0) -> bool:
        """Read what there is; until the end was reached once, wait for it up to *patience_s*. Returns whether the end
        was reached.

        Raises:
            DependencyUnavailable: The brokers are unavailable, or a topic does not exist.
        """
        if self._table is None:
            self._start()
        else:
            self._check_growth()
        table = self.table
        deadline = self._clock.monotonic() + patience_s
        taken = 0
        while taken < _MOST_AT_ONCE:
            records = self._reader.poll(0.0 if self.caught_up else 0.05, _BATCH)
            if records:
                table.apply(records, self._clock.now())
                taken += len(records)
                self._next |= {TopicPartition(r.topic, r.partition): r.offset + 1 for r in records}
            if self._targets:
                self._targets = {p: end for p, end in self._targets.items() if self._reader.position(p) < end}
            if (not records and self.caught_up) or self._clock.monotonic() >= deadline:
                break
        return self.caught_up

    def committing(self, partition: int, block: Block) -> None:
        """*block* is part of the transaction that is about to be committed."""
        self._pending.append((partition, block))

    def committed(self) -> None:
        """The transaction was committed: apply its blocks at once, without reading them back."""
        while self._pending:
            self.table.apply_own(*self._pending.popleft())

    def aborted(self) -> None:
        """The transaction was aborted, or its outcome is unknown: its blocks count only if they are read."""
        self._pending.clear()

    def save(self) -> None:
        """Write a snapshot, unless nothing was read since the last.

        Raises:
            DependencyUnavailable: The disk refuses.
        """
        position = sum(self._next.values())
        if self._store is None or not self.caught_up or position == self._saved:
            return
        facts = {f"offset:{p.topic}:{p.partition}": offset for p, offset in self._next.items()}
        self._store.save(position, pack(_KIND, facts | self.table.gate.facts(), self.table.state.arrays()))
        self._saved = position

    def close(self) -> None:
        """Release the consumer."""
        self._reader.close()

    def _start(self) -> None:
        gated = sorted(p.partition for p in self._partitions(TRANSACTIONS.name, 1))
        self._partitions(FEATURE_PANES.name, len(gated))
        partitions = self._partitions(TERMINAL_ACTIVITY.name, len(gated)) | self._partitions(LABELS.name, 1)
        first, end = self._reader.beginning_offsets(partitions), self._reader.end_offsets(partitions)
        table = TerminalTable(gated, self._layout)
        store = self._store_of()
        offsets = self._restore(store, table, end)
        self._reader.assign(partitions)
        self._next = {p: max(offsets.get(p, 0), first[p]) for p in partitions}
        for partition, offset in self._next.items():
            self._reader.seek(partition, offset)
        self._targets = {p: end[p] for p in partitions if self._next[p] < end[p]}
        self._saved = sum(self._next.values())
        self._table = table
        self._store = store

    def _check_growth(self) -> None:
        """Read partitions too that the topics were given since; ``transactions`` is its consumer's to check."""
        if (now := self._clock.monotonic()) - self._checked_at < GROWTH_CHECK_S:
            return
        self._checked_at = now
        found = self._reader.partitions_of(TERMINAL_ACTIVITY.name) | self._reader.partitions_of(LABELS.name)
        if added := found - self._next.keys():
            first, end = self._reader.beginning_offsets(added), self._reader.end_offsets(added)
            assign_more(self._reader, self._next, added)
            self._next |= first
            self._targets |= {p: end[p] for p in added if first[p] < end[p]}

    def _partitions(self, topic: str, least: int) -> frozenset[TopicPartition]:
        partitions = self._reader.partitions_of(topic)
        if len(partitions) < least:
            problem, remedy = (
                (
                    f"has {len(partitions)} partitions, fewer than {TRANSACTIONS.name}",
                    f"kafka-topics.sh --bootstrap-server ... --alter --topic {topic} --partitions {least}",
                )
                if partitions
                else ("does not exist", "run `centinela topics create`")
            )
            raise DependencyUnavailable(f"topic {topic} {problem}: {remedy}", dependency="kafka")
        return partitions

    def _restore(
        self, store: SnapshotStore, table: TerminalTable, end: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """Offsets to read from, with *table* restored to them; none where no snapshot fits the topics."""
        for position, data in store.load(at_most=1 << 62):
            try:
                facts, arrays = unpack(_KIND, data)
                state = TerminalState.from_arrays(arrays, self._layout)
            except SnapshotDamaged as damaged:
                _log.warning("snapshot.refused", state="terminals", position=position, detail=str(damaged))
                continue
            offsets = {}
            for name, value in facts.items():
                kind, _, rest = name.partition(":")
                if kind == "offset":
                    topic, _, number = rest.rpartition(":")
                    offsets[TopicPartition(topic, int(number))] = value
            if any(offset > end.get(p, 0) for p, offset in offsets.items()):
                _log.warning(
                    "snapshot.refused", state="terminals", position=position, detail="it is ahead of its topics"
                )
                continue
            table.state = state
            table.gate.restore(facts)
            _log.info("snapshot.restored", state="terminals", position=position)
            return offsets
        return {}
