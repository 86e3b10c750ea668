"""What the Feast role does with a batch of verdicts: their served vectors, by column, to the online store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import pandas as pd

from centinela.clock import Clock
from centinela.codec import Decoder, time_fault
from centinela.consuming.handler import Outcome
from centinela.deadletters.record import DeadLetter
from centinela.errors import InvalidRecord
from centinela.events import PURCHASE, TransactionScored
from centinela.features.layout import FeatureLayout, unpack_rows
from centinela.kafka.port import Record


class Pusher(Protocol):
    """Where the vectors go: ``centinela.featurestore.push.FeaturePusher``."""

    def push(self, served: pd.DataFrame) -> None:
        """Take verdicts in log order. Raises ``DependencyUnavailable`` where the store is unavailable."""


class FeastSink:
    """Handler of ``predictions``: pushes each batch before its offsets are committed. A repeated batch changes
    nothing. Refunds and reversals have no windows, and are not pushed."""

    def __init__(self, pusher: Pusher, clock: Clock) -> None:
        self._pusher = pusher
        self._clock = clock
        self._decoder = Decoder(TransactionScored)

    def __call__(self, records: Sequence[Record]) -> Outcome:
        verdicts: list[TransactionScored] = []
        dead: list[DeadLetter] = []
        layouts: dict[str, FeatureLayout] = {}
        now = self._clock.now()
        for record, event in zip(records, self._decoder.decode_many([record.value for record in records]), strict=True):
            try:
                verdict = _checked(event, record.timestamp_ms, now, layouts)
                if verdict.kind == PURCHASE:
                    verdicts.append(verdict)
            except InvalidRecord as invalid:
                dead.append(DeadLetter.of(record, invalid))
        if verdicts:
            self._pusher.push(served_rows(verdicts, layouts))
        return Outcome(dead_letters=dead)


def served_rows(verdicts: Sequence[TransactionScored], layouts: dict[str, FeatureLayout]) -> pd.DataFrame:
    """A row for each of *verdicts*, in their order: who, where, when (by the archive's column names), and the vector's
    columns.

    Args:
        layouts: At least each ``feature_set`` among them, parsed.
    """
    parts = []
    for feature_set, layout in layouts.items():
        rows = [n for n, verdict in enumerate(verdicts) if verdict.feature_set == feature_set]
        if rows:
            matrix = unpack_rows([verdicts[n].features for n in rows], len(layout.names))
            parts.append(pd.DataFrame(matrix, index=rows, columns=list(layout.names)))
    vectors = (pd.concat(parts) if len(parts) > 1 else parts[0]).sort_index()
    who_and_when = pd.DataFrame(
        {
            "user_id": [verdict.user_id for verdict in verdicts],
            "terminal_id": [verdict.terminal_id for verdict in verdicts],
            "occurred_at": pd.to_datetime([verdict.occurred_at for verdict in verdicts], utc=True),
            "scored_at": pd.to_datetime([verdict.scored_at for verdict in verdicts], utc=True),
        }
    )
    return pd.concat([who_and_when, vectors], axis=1)


def _checked(
    event: TransactionScored | InvalidRecord, timestamp_ms: int, now: datetime, layouts: dict[str, FeatureLayout]
) -> TransactionScored:
    if isinstance(event, InvalidRecord):
        raise event
    if (fault := time_fault(event, timestamp_ms, now)) is not None:
        raise fault
    layout = layouts.get(event.feature_set)
    try:
        layout = layout or FeatureLayout.parse(event.feature_set)
    except ValueError as error:
        raise InvalidRecord("invalid_field", f"feature_set: {error}") from error
    if len(event.features) != 8 * len(layout.names):
        raise InvalidRecord(
            "invalid_field",
            f"features holds {len(event.features)} bytes; {event.feature_set!r} needs {8 * len(layout.names)}",
        )
    layouts[event.feature_set] = layout
    return event
