"""The stream: transactions in; verdicts, terminal blocks, panes and offsets out, in one Kafka transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import structlog
from numpy.typing import NDArray

from centinela.clock import Clock
from centinela.consuming.handler import Outcome, StatefulHandler
from centinela.deadletters.record import DeadLetter
from centinela.events import AnyVerdict
from centinela.features.assemble import assemble, attribute_matrix
from centinela.features.keys import MISSING_ID, Int64s
from centinela.features.layout import FeatureLayout
from centinela.kafka.port import Consumer, Record, TopicPartition
from centinela.liveness.health import Health
from centinela.topics import TRANSACTIONS
from centinela_predictor.models import metrics
from centinela_predictor.models.scoring import ScoringCore
from centinela_predictor.models.slot import ModelSlot
from centinela_predictor.state.admission import Admitted, admit, by_partition
from centinela_predictor.state.metrics import GATE_FORCED, HELD, LATE, WATERMARK
from centinela_predictor.state.partition_state import PartitionState
from centinela_predictor.state.partition_store import PartitionHome
from centinela_predictor.state.repartition import without_strays
from centinela_predictor.state.terminal_activity import IDLE, Block
from centinela_predictor.state.terminal_feed import TerminalFeed
from centinela_predictor.stream.outgoing import Batch, Emitter, block_record
from centinela_predictor.stream.snapshots import Snapshots

_NOTHING = np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.uint64)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class StreamLimits:
    """Seconds (monotonic) and counts that bound what the stream waits for and remembers.

    ``idle_after_s``: a partition without records for so long, and with none waiting, is announced idle.
    ``gate_patience_s``: longest wait of one transaction for partitions that are behind in event time.
    """

    idle_after_s: float = 1.0
    gate_patience_s: float = 30.0


@dataclass
class _Owned:
    """A partition of ours. ``position``: the committed offset that *state* stands for. ``held``: offset held, and since
    when.

    ``quiet_end``: where it ends, while nothing of it waits to be read. ``announced``: watermark and, where that is
    ``IDLE``, that end.
    """

    state: PartitionState
    position: int | None
    heard_at: float
    announced: tuple[int, int] | None = None
    held: tuple[int, float] | None = None
    quiet_end: int | None = None

    def heard(self, now: float) -> None:
        """Records came."""
        self.heard_at, self.quiet_end = now, None


class StreamHandler(StatefulHandler):
    """Scores ``transactions`` for a ``ConsumerLoop``.

    A transaction with a verdict (of a gateway, or history) keeps it; the others are scored in one call per batch. The
    first that needs a model while none serves, or that is too far ahead of other partitions (see ``Gate``), is held
    with what follows in its partition. A copy of a transaction seen before leaves no trace but a count; another
    transaction under its id is a dead letter.

    Args:
        reader: The loop's consumer, here only asked where things stand.
        home: Where the state of partitions is kept.
        writer: Names this process in its terminal blocks; another one each time it starts.
    """

    def __init__(
        self,
        *,
        layout: FeatureLayout,
        core: ScoringCore,
        slot: ModelSlot,
        feed: TerminalFeed,
        reader: Consumer,
        home: PartitionHome,
        snapshot_interval_s: float,
        clock: Clock,
        health: Health,
        writer: int,
        limits: StreamLimits | None = None,
    ) -> None:
        self._layout, self._core, self._slot, self._feed, self._clock, self._writer = (
            layout,
            core,
            slot,
            feed,
            clock,
            writer,
        )
        self._reader, self._limits = reader, limits or StreamLimits()
        self._emitter = Emitter(layout)
        self._home = home
        self._snapshots = Snapshots(home, reader, feed, clock, health, snapshot_interval_s)
        self._owned: dict[int, _Owned] = {}
        self._believed: set[int] = set()
        self._sequence = 0

    def ready(self) -> bool:
        """True once terminal state was read to its end; keeps it there, and finds out which partitions are idle."""
        self.waiting_for = "terminal activity and labels are being read"
        now = self._clock.monotonic()
        for number, owned in self._owned.items():
            if owned.held is None and now - owned.heard_at > self._limits.idle_after_s:
                partition = TopicPartition(TRANSACTIONS.name, number)
                end = self._reader.end_offsets([partition])[partition]
                owned.heard_at, owned.quiet_end = now, end if self._reader.position(partition) >= end else None
        return self._feed.advance()

    def on_assigned(self, partition: TopicPartition, committed: int | None) -> int | None:
        number = partition.partition
        restored = self._snapshots.restore(number, committed)
        state, position = restored or (self._home.new_state(), None)
        self._owned[number] = _Owned(state, position, self._clock.monotonic())
        return position if position is not None else None if committed is None else 0

    def replay(self, records: Sequence[Record]) -> None:
        now = self._clock.now()
        for number, part in by_partition(records).items():
            owned = self._owned[number]
            owned.state.apply(self._admit(number, part, now).columns)
            owned.position = part[-1].offset + 1
            owned.heard(self._clock.monotonic())

    def on_committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._feed.committed()
        for partition, offset in offsets.items():
            self._owned[partition.partition].position = offset
        self._save_due()

    def on_revoked(self, partition: TopicPartition) -> None:
        owned = self._owned[partition.partition]
        if owned.position is not None:
            self._snapshots.save(partition.partition, owned.state, owned.position)

    def on_dropped(self, partition: TopicPartition) -> None:
        self._feed.aborted()
        self._owned.pop(partition.partition, None)

    def idle(self) -> Outcome:
        outcome = Outcome()
        self._announce_idle(outcome)
        self._save_due()
        return outcome

    def __call__(self, records: Sequence[Record]) -> Outcome:
        now = self._clock.now()
        outcome = Outcome()
        self._believed.clear()
        batches = [self._prepare(number, part, now, outcome) for number, part in by_partition(records).items()]
        self._emit([batch for batch in batches if batch is not None], now, outcome)
        self._announce_idle(outcome)
        return outcome

    def _save_due(self) -> None:
        self._snapshots.save_due({number: (owned.state, owned.position) for number, owned in self._owned.items()})

    def _prepare(self, number: int, records: list[Record], now: datetime, outcome: Outcome) -> Batch | None:
        """Take one partition's records up to the first that is held; None where that leaves nothing to emit."""
        owned = self._owned[number]
        owned.heard(self._clock.monotonic())
        admitted = self._admit(number, records, now)
        held_time = self._hold(number, owned, admitted, outcome)
        if held_time is not None:
            held_offset = outcome.deferred[TopicPartition(records[0].topic, number)]
            admitted = admitted.before(held_offset)
            if held_offset == records[0].offset and owned.announced == (max(owned.state.newest, held_time), 0):
                return None
        outcome.dead_letters += admitted.refused
        owned.state.users.taken_late()
        rows, users = owned.state.apply(admitted.columns)
        for name, count in zip(("accepted", "too_late"), owned.state.users.taken_late(), strict=True):
            LATE.labels(name).inc(count)
        known = len(admitted.events) - len(rows)
        conflicts = _conflicts(admitted, owned.state.conflicting(admitted.columns, rows)) if known else []
        outcome.dead_letters += conflicts
        columns = admitted.columns.take(rows) if known else admitted.columns
        events = [admitted.events[n] for n in rows.tolist()] if known else admitted.events
        kept = [admitted.records[n] for n in rows.tolist()] if known else admitted.records
        terminals = self._feed.table.state.read(columns.terminals, columns.times)
        matrix = assemble(columns, users, terminals, attribute_matrix(events, self._layout))
        to_score = np.array([n for n, event in enumerate(events) if event.verdict is None], dtype=np.intp)
        for name, count in (("duplicate", known - len(conflicts)), ("adopted", len(events) - len(to_score))):
            if count:
                outcome.counts[name] = outcome.counts.get(name, 0) + count
        watermark = owned.state.newest if held_time is None else max(owned.state.newest, held_time)
        return Batch(number, kept, events, columns, matrix, to_score, watermark)

    def _admit(self, number: int, records: list[Record], now: datetime) -> Admitted:
        return without_strays(
            admit(records, now, self._layout), self._owned[number].state, number, self._home.partitions
        )

    def _hold(self, number: int, owned: _Owned, admitted: Admitted, outcome: Outcome) -> int | None:
        """Hold the first transaction that cannot be scored yet, and all that follows; its event time, ms."""
        columns = admitted.columns
        at_terminal = columns.terminals != MISSING_ID
        self._question_idle(columns.times[at_terminal])
        limit = self._feed.table.gate.limit
        far = at_terminal if limit is None else at_terminal & (columns.times > limit)
        if limit == IDLE or not len(columns):
            far[:] = False
        waits = [] if self._core.ready else [n for n, event in enumerate(admitted.events) if event.verdict is None][:1]
        first_far = np.flatnonzero(far)
        if len(first_far) and self._waited_long(owned, admitted.records[first_far[0]].offset):
            GATE_FORCED.inc()
            _log.warning("transaction.scored_ahead", partition=number, offset=admitted.records[first_far[0]].offset)
            first_far = first_far[columns.times[first_far] > columns.times[first_far[0]]]
        if not waits and not len(first_far):
            owned.held = None
            return None
        at = min([*waits, *first_far[:1].tolist()])
        HELD.labels("model" if waits == [at] else "partitions").inc()
        offset = admitted.records[at].offset
        if owned.held is None or owned.held[0] != offset:
            owned.held = offset, self._clock.monotonic()
        outcome.deferred[TopicPartition(admitted.records[at].topic, number)] = offset
        return int(columns.times[at])

    def _question_idle(self, times: Int64s) -> None:
        """Before *times* outrun a partition that is called idle, see that it still is: its owner may have died
        since."""
        gate = self._feed.table.gate
        doubtful = gate.doubtful(int(times.max())) if len(times) else {}
        if asked := {
            TopicPartition(TRANSACTIONS.name, number): end
            for number, end in doubtful.items()
            if number not in self._believed
        }:
            ends = self._reader.end_offsets(list(asked))
            for partition, end in asked.items():
                if ends[partition] > end:
                    gate.disbelieve(partition.partition)
                else:
                    self._believed.add(partition.partition)

    def _waited_long(self, owned: _Owned, offset: int) -> bool:
        return (
            owned.held is not None
            and owned.held[0] == offset
            and self._clock.monotonic() - owned.held[1] > self._limits.gate_patience_s
        )

    def _emit(self, batches: list[Batch], now: datetime, outcome: Outcome) -> None:
        scoring = [batch for batch in batches if len(batch.to_score)]
        scored = None
        pair = self._slot.pair
        if scoring:
            keys = [
                event.user_id or event.transaction_id
                for b in scoring
                for n in b.to_score.tolist()
                for event in (b.events[n],)
            ]
            with metrics.SCORING_DURATION.time():
                scored = self._core.score(np.concatenate([b.matrix[b.to_score] for b in scoring]), self._layout, keys)
            metrics.count_decisions(scored)
        given = iter(scored.verdicts(AnyVerdict, "stream", now) if scored else ())
        first = 0
        for batch in batches:
            verdicts = self._emitter.verdicts(batch, given, now)
            outcome.events += self._emitter.predictions(batch, verdicts, now)
            outcome.events += self._emitter.panes(batch, verdicts, scored, first, pair)
            first += len(batch.to_score)
            some = np.flatnonzero(batch.columns.terminals != MISSING_ID)
            part = batch.columns.take(some)
            self._announce(batch.partition, self._block(batch.watermark, part.terminals, part.times, part.ids), outcome)
            WATERMARK.labels(str(batch.partition)).set(batch.watermark / 1000)

    def _announce_idle(self, outcome: Outcome) -> None:
        for number, owned in self._owned.items():
            if owned.quiet_end is not None and owned.announced != (IDLE, owned.quiet_end):
                self._announce(number, self._block(IDLE, *_NOTHING)._replace(end=owned.quiet_end), outcome)

    def _block(self, watermark: int, terminals: np.ndarray, times: np.ndarray, ids: np.ndarray) -> Block:
        self._sequence += 1
        return Block(watermark, self._writer, self._sequence, terminals, times, ids)

    def _announce(self, number: int, block: Block, outcome: Outcome) -> None:
        outcome.events.append(block_record(number, block))
        self._feed.committing(number, block)
        self._owned[number].announced = block.watermark, block.end


def _conflicts(admitted: Admitted, rows: NDArray[np.intp]) -> list[DeadLetter]:
    return [
        DeadLetter(
            admitted.records[n],
            "conflict",
            f"transaction {admitted.events[n].transaction_id} was given before with another payload; its first verdict"
            " stands",
        )
        for n in rows.tolist()
    ]
