"""Which transactions wait: for a model, or for partitions that are behind in event time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import structlog

from centinela.clock import Clock
from centinela.events import PURCHASE
from centinela.features.keys import MISSING_ID, Int64s
from centinela.kafka.port import Consumer, TopicPartition
from centinela.topics import TRANSACTIONS
from centinela_predictor.models.scoring import ScoringCore
from centinela_predictor.state.admission import Admitted
from centinela_predictor.state.metrics import GATE_FORCED, HELD
from centinela_predictor.state.terminal_activity import IDLE
from centinela_predictor.state.terminal_feed import TerminalFeed
from centinela_predictor.stream.owned_partition import Deferral, OwnedPartition

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class StreamLimits:
    """Seconds (monotonic) that bound what the stream waits for.

    ``idle_after_s``: a partition without new records for this long, and with none waiting, is announced idle.
    ``gate_patience_s``: longest wait of one transaction for partitions that are behind in event time.
    """

    idle_after_s: float = 1.0
    gate_patience_s: float = 30.0


class DeferralPolicy:
    """Decides where a partition's batch ends because a transaction cannot be scored yet.

    Args:
        reader: The source of the ends of idle partitions.
    """

    def __init__(
        self, core: ScoringCore, feed: TerminalFeed, reader: Consumer, clock: Clock, limits: StreamLimits
    ) -> None:
        self._core = core
        self._feed = feed
        self._reader = reader
        self._clock = clock
        self._limits = limits
        self._confirmed_idle: set[int] = set()

    def start_batch(self) -> None:
        """Forget which idle partitions were confirmed: each batch checks them again."""
        self._confirmed_idle.clear()

    def first_deferred(self, number: int, owned: OwnedPartition, admitted: Admitted) -> int | None:
        """The row of the first transaction that cannot be scored yet, or None; *owned* keeps since when it waits."""
        without_model = self._first_without_model(admitted)
        too_far = self._first_too_far(number, owned, admitted)
        rows = [row for row in (without_model, too_far) if row is not None]
        if not rows:
            owned.deferral = None
            return None
        row = min(rows)
        HELD.labels("model" if row == without_model else "partitions").inc()
        offset = admitted.records[row].offset
        if owned.deferral is None or owned.deferral.offset != offset:
            owned.deferral = Deferral(offset, self._clock.monotonic())
        return row

    def _first_without_model(self, admitted: Admitted) -> int | None:
        if self._core.ready:
            return None
        rows = enumerate(admitted.events)
        return next((row for row, event in rows if event.verdict is None and event.kind == PURCHASE), None)

    def _first_too_far(self, number: int, owned: OwnedPartition, admitted: Admitted) -> int | None:
        """The first transaction with a terminal that the gate does not let through; one that has waited too long is
        let through."""
        columns = admitted.columns
        with_terminal = columns.terminals != MISSING_ID
        self._check_idle(columns.times[with_terminal])
        limit = self._feed.table.gate.limit
        if limit == IDLE or not len(columns):
            return None
        rows = np.flatnonzero(with_terminal if limit is None else with_terminal & (columns.times > limit))
        if len(rows) and self._waited_too_long(owned, admitted.records[rows[0]].offset):
            GATE_FORCED.inc()
            _log.warning("transaction.scored_ahead", partition=number, offset=admitted.records[rows[0]].offset)
            rows = rows[columns.times[rows] > columns.times[rows[0]]]
        return int(rows[0]) if len(rows) else None

    def _check_idle(self, times: Int64s) -> None:
        """Before *times* pass a partition that is announced idle, check that it still is: its owner may have died
        since."""
        gate = self._feed.table.gate
        doubtful = gate.doubtful(int(times.max())) if len(times) else {}
        expected = {
            TopicPartition(TRANSACTIONS.name, number): end
            for number, end in doubtful.items()
            if number not in self._confirmed_idle
        }
        if not expected:
            return
        ends = self._reader.end_offsets(list(expected))
        for partition, end in expected.items():
            if ends[partition] > end:
                gate.disbelieve(partition.partition)
            else:
                self._confirmed_idle.add(partition.partition)

    def _waited_too_long(self, owned: OwnedPartition, offset: int) -> bool:
        return (
            owned.deferral is not None
            and owned.deferral.offset == offset
            and self._clock.monotonic() - owned.deferral.since > self._limits.gate_patience_s
        )
