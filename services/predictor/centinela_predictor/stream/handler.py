"""The stream: transactions in; verdicts, terminal blocks, panes and offsets out, in one Kafka transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from centinela.clock import Clock
from centinela.consuming.handler import Outcome, StatefulHandler
from centinela.deadletters.record import DeadLetter
from centinela.events import PURCHASE, Verdict
from centinela.features.assemble import assemble, attribute_matrix
from centinela.features.layout import FeatureLayout
from centinela.kafka.port import Consumer, Record, TopicPartition
from centinela.liveness.health import Health
from centinela.liveness.progress import report_progress
from centinela.topics import TRANSACTIONS
from centinela_predictor.models import metrics
from centinela_predictor.models.scoring import ScoredBatch, ScoringCore
from centinela_predictor.models.slot import ModelSlot
from centinela_predictor.state.admission import Admitted, admit, by_partition
from centinela_predictor.state.metrics import LATE, WATERMARK
from centinela_predictor.state.misrouted import MisroutedCheck, OnMisrouted
from centinela_predictor.state.partition_store import PartitionStores
from centinela_predictor.state.terminal_feed import TerminalFeed
from centinela_predictor.state.written_position import PositionUnknown
from centinela_predictor.stream.announcer import Announcer
from centinela_predictor.stream.deferral import DeferralPolicy, StreamLimits
from centinela_predictor.stream.outgoing import Batch, OutgoingRecords
from centinela_predictor.stream.owned_partition import OwnedPartition
from centinela_predictor.stream.snapshots import Snapshots
from centinela_predictor.stream.unknown_fields import UnknownFieldReport

_NEVER = -(1 << 62)


class StreamHandler(StatefulHandler):
    """Scores ``transactions`` for a ``ConsumerLoop``.

    A transaction with a verdict (of a gateway, or history) keeps it. Other purchases are scored in one call per batch;
    refunds and reversals are let through. The first that needs a model while none serves, or that is too far ahead of
    other partitions (see ``Gate``), is deferred with what follows in its partition. A copy of a transaction seen before
    leaves no trace but a count; another transaction under its id is a dead letter. One in another partition
    than its user's is counted, or refused.

    Args:
        reader: The loop's consumer; here it only answers for offsets and positions.
        stores: Where the state of partitions is kept.
        writer: Identifies this process in its terminal blocks; a new one each time it starts.
    """

    def __init__(
        self,
        *,
        layout: FeatureLayout,
        core: ScoringCore,
        slot: ModelSlot,
        feed: TerminalFeed,
        reader: Consumer,
        stores: PartitionStores,
        snapshot_interval_s: float,
        clock: Clock,
        health: Health,
        writer: int,
        limits: StreamLimits | None = None,
        on_misrouted: OnMisrouted = "count",
    ) -> None:
        limits = limits or StreamLimits()
        self._layout = layout
        self._core = core
        self._slot = slot
        self._feed = feed
        self._clock = clock
        self._reader = reader
        self._stores = stores
        self._idle_after_s = limits.idle_after_s
        self._misrouted = MisroutedCheck(on_misrouted, clock)
        self._outgoing = OutgoingRecords(layout, stores.rules.rates.base)
        self._deferral = DeferralPolicy(core, feed, reader, clock, limits)
        self._announcer = Announcer(feed, stores, writer)
        self._snapshots = Snapshots(stores, reader, feed, clock, health, snapshot_interval_s)
        self._unknown_fields = UnknownFieldReport()
        self._owned: dict[int, OwnedPartition] = {}

    def ready(self) -> bool:
        """True once terminal state was read to its end; keeps it there, and notes which partitions are idle."""
        self.waiting_for = "terminal activity and labels are being read"
        now = self._clock.monotonic()
        for number, owned in self._owned.items():
            if owned.deferral is None and now - owned.last_record_at > self._idle_after_s:
                partition = TopicPartition(TRANSACTIONS.name, number)
                end = self._reader.end_offsets([partition])[partition]
                owned.last_record_at = now
                owned.quiet_end = end if self._reader.position(partition) >= end else None
        return self._feed.advance()

    def has_position(self, partition: TopicPartition) -> bool:
        """Whether ``position_known`` gives an offset; False also where it cannot tell."""
        try:
            return self.position_known(partition) is not None
        except PositionUnknown:
            return False

    def position_known(self, partition: TopicPartition) -> int | None:
        return self._snapshots.written_position(partition.partition)

    def on_assigned(self, partition: TopicPartition, committed: int | None) -> int | None:
        number = partition.partition
        restored = self._snapshots.restore(number, committed)
        state, position = restored or (self._stores.new_state(), None)
        self._owned[number] = OwnedPartition(state, position, self._clock.monotonic())
        return position if position is not None else None if committed is None else 0

    def replay(self, records: Sequence[Record]) -> None:
        now = self._clock.now()
        for number, part in by_partition(records).items():
            report_progress(self._clock)
            owned = self._owned[number]
            owned.state.apply(self._admit(number, part, now, replayed=True).columns)
            owned.position = part[-1].offset + 1
            owned.received(self._clock.monotonic())

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
        outcome = Outcome(events=self._announcer.idle(self._owned))
        self._save_due()
        return outcome

    def __call__(self, records: Sequence[Record]) -> Outcome:
        now = self._clock.now()
        outcome = Outcome()
        self._deferral.start_batch()
        batches = [self._prepare(number, part, now, outcome) for number, part in by_partition(records).items()]
        self._emit([batch for batch in batches if batch is not None], now, outcome)
        outcome.events += self._announcer.idle(self._owned)
        return outcome

    def _save_due(self) -> None:
        self._snapshots.save_due({number: (owned.state, owned.position) for number, owned in self._owned.items()})

    def _prepare(self, number: int, records: list[Record], now: datetime, outcome: Outcome) -> Batch | None:
        """Take one partition's records up to the first that is deferred; None where that leaves nothing to emit."""
        report_progress(self._clock)
        owned = self._owned[number]
        owned.received(self._clock.monotonic())
        admitted = self._admit(number, records, now)
        deferred_time, next_offset = _NEVER, records[-1].offset + 1
        deferred = self._deferral.first_deferred(number, owned, admitted)
        if deferred is not None:
            deferred_time, offset = int(admitted.columns.times[deferred]), admitted.records[deferred].offset
            next_offset = offset
            outcome.deferred[TopicPartition(TRANSACTIONS.name, number)] = offset
            admitted = admitted.before(offset)
            if offset == records[0].offset and owned.announced == (max(owned.state.newest, deferred_time), 0):
                return None
        outcome.dead_letters += admitted.refused
        self._unknown_fields.report([name for _, name in admitted.unknown])
        owned.state.users.taken_late()
        rows, users = owned.state.apply(admitted.columns)
        for name, count in zip(("accepted", "too_late"), owned.state.users.taken_late(), strict=True):
            LATE.labels(name).inc(count)
        repeated = len(admitted.events) - len(rows)
        conflicts = _conflicts(admitted, owned.state.conflicting(admitted.columns, rows)) if repeated else []
        outcome.dead_letters += conflicts
        columns = admitted.columns.take(rows) if repeated else admitted.columns
        events = [admitted.events[n] for n in rows.tolist()] if repeated else admitted.events
        new_records = [admitted.records[n] for n in rows.tolist()] if repeated else admitted.records
        terminals = self._feed.table.state.read(columns.terminals, columns.times)
        matrix = assemble(columns, users, terminals, attribute_matrix(events, self._layout))
        own = [n for n, event in enumerate(events) if event.verdict is None]
        to_score = np.array([n for n in own if events[n].kind == PURCHASE], dtype=np.intp)
        for name, count in (
            ("duplicate", repeated - len(conflicts)),
            ("adopted", len(events) - len(own)),
            ("not_scored", len(own) - len(to_score)),
        ):
            if count:
                outcome.counts[name] = outcome.counts.get(name, 0) + count
        watermark = max(owned.state.newest, deferred_time)
        return Batch(number, new_records, events, columns, matrix, to_score, watermark, next_offset)

    def _admit(self, number: int, records: list[Record], now: datetime, *, replayed: bool = False) -> Admitted:
        admitted, state = admit(records, now, self._layout, self._stores.rules), self._owned[number].state
        return self._misrouted.apply(admitted, state, number, self._stores.partitions, replayed=replayed)

    def _emit(self, batches: list[Batch], now: datetime, outcome: Outcome) -> None:
        pair = self._slot.pair
        scored = self._score([batch for batch in batches if len(batch.to_score)])
        given = iter(scored.verdicts(Verdict, "stream", now) if scored else ())
        first = 0
        for batch in batches:
            verdicts = self._outgoing.verdicts(batch, given, now)
            outcome.events += self._outgoing.predictions(batch, verdicts, now)
            outcome.events += self._outgoing.panes(batch, verdicts, scored, first, pair)
            outcome.events.append(self._announcer.activity(batch, self._owned[batch.partition]))
            first += len(batch.to_score)
            WATERMARK.labels(str(batch.partition)).set(batch.watermark / 1000)

    def _score(self, batches: list[Batch]) -> ScoredBatch | None:
        """All rows of *batches* that have no verdict, in one call."""
        if not batches:
            return None
        keys = [
            event.user_id or event.transaction_id
            for batch in batches
            for event in map(batch.events.__getitem__, batch.to_score.tolist())
        ]
        with metrics.SCORING_DURATION.time():
            scored = self._core.score(np.concatenate([b.matrix[b.to_score] for b in batches]), self._layout, keys)
        metrics.count_decisions(scored)
        return scored


def _conflicts(admitted: Admitted, rows: NDArray[np.intp]) -> list[DeadLetter]:
    return [
        DeadLetter(
            admitted.records[n],
            "conflict",
            f"transaction {admitted.events[n].transaction_id} was given before with another payload; its first verdict"
            " remains valid",
        )
        for n in rows.tolist()
    ]
