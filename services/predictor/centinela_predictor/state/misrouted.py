"""Transactions that are in another partition than their user's, where what their user did before is not known.

A user's partition is murmur2 of the user id, or of the transaction id where there is no user. Anything else splits a
user's windows over partitions, without an error: a producer whose client partitions in another way (librdkafka's by
CRC32, unless told otherwise), one that uses another key or none, one that does not know that the topic has grown.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from centinela.clock import Clock
from centinela.deadletters.record import DeadLetter
from centinela.events import TransactionReceived
from centinela.kafka.partitioner import partitions_of
from centinela.kafka.port import Record
from centinela_predictor.state.admission import Admitted
from centinela_predictor.state.metrics import MISROUTED
from centinela_predictor.state.partition_state import PartitionState

OnMisrouted = Literal["count", "refuse"]
_LOG_EVERY_S = 60.0
_log = structlog.get_logger(__name__)


def home_key(event: TransactionReceived) -> bytes:
    """The key that *event*'s record must have, and whose partition it must be in."""
    return (event.user_id or event.transaction_id).encode()


class MisroutedCheck:
    """Finds misrouted transactions, counts and logs them, and where it should, refuses them.

    After the topic has grown (``PartitionState.repartitioned_at``) those with the right key are always refused: what
    their user did before is in the state of the right partition, so scoring one here would leave a hole there.

    Args:
        on_misrouted: ``count`` keeps them, ``refuse`` makes each a dead letter, ``wrong_partition``.
        counts: Whether they are counted and logged; a reader of what another process counts does not.
    """

    def __init__(self, on_misrouted: OnMisrouted, clock: Clock, *, counts: bool = True) -> None:
        self._refuses = on_misrouted == "refuse"
        self._clock = clock
        self._counts = counts
        self._unlogged: Counter[str] = Counter()
        self._logged_at = float("-inf")
        self._counted: dict[int, int] = {}

    def apply(
        self, admitted: Admitted, state: PartitionState, number: int, partitions: int, *, replayed: bool = False
    ) -> Admitted:
        """*admitted*, of partition *number*, without what is refused. What is *replayed* was counted before."""
        homes = partitions_of([home_key(event) for event in admitted.events], partitions)
        misrouted = np.flatnonzero(homes != number)
        if state.repartitioned_at is not None and len(misrouted):
            offsets = np.array([admitted.records[n].offset for n in misrouted.tolist()])
            misrouted = misrouted[offsets >= state.repartitioned_at]
        if not len(misrouted):
            return admitted
        if self._counts and not replayed:
            self._count(admitted, self._uncounted(admitted, misrouted, number), homes, partitions)
        if not self._refuses:
            grown = state.repartitioned_at is not None
            misrouted = misrouted[
                [grown and _cause(admitted.records[n], admitted.events[n]) == "partitioner" for n in misrouted.tolist()]
            ]
        return _without(admitted, misrouted, homes, partitions) if len(misrouted) else admitted

    def _uncounted(self, admitted: Admitted, misrouted: NDArray[np.intp], number: int) -> NDArray[np.intp]:
        """Those that come for the first time: what is deferred, or was aborted, comes again."""
        first = self._counted.get(number, 0)
        self._counted[number] = max(first, admitted.records[misrouted[-1]].offset + 1)
        return np.array([n for n in misrouted.tolist() if admitted.records[n].offset >= first], np.intp)

    def _count(
        self, admitted: Admitted, misrouted: NDArray[np.intp], homes: NDArray[np.int64], partitions: int
    ) -> None:
        if not len(misrouted):
            return
        causes = Counter(_cause(admitted.records[n], admitted.events[n]) for n in misrouted.tolist())
        for cause, count in causes.items():
            MISROUTED.labels(cause).inc(count)
        self._unlogged += causes
        now = self._clock.monotonic()
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            record, event = admitted.records[misrouted[0]], admitted.events[misrouted[0]]
            _log.warning(
                "transactions.misrouted",
                count=self._unlogged.total(),
                causes=dict(self._unlogged),
                partition=record.partition,
                offset=record.offset,
                detail=_detail(record, event, int(homes[misrouted[0]]), partitions),
            )
            self._unlogged.clear()


def _without(admitted: Admitted, misrouted: NDArray[np.intp], homes: NDArray[np.int64], partitions: int) -> Admitted:
    keep = np.setdiff1d(np.arange(len(admitted.records)), misrouted, assume_unique=True)
    refused = [
        DeadLetter(
            admitted.records[n],
            "wrong_partition",
            _detail(admitted.records[n], admitted.events[n], int(homes[n]), partitions),
        )
        for n in misrouted.tolist()
    ]
    return replace(
        admitted,
        records=[admitted.records[n] for n in keep.tolist()],
        events=[admitted.events[n] for n in keep.tolist()],
        columns=admitted.columns.take(keep),
        refused=admitted.refused + refused,
    )


def _cause(record: Record, event: TransactionReceived) -> str:
    if record.key is None:
        return "no_key"
    return "partitioner" if record.key == home_key(event) else "key"


def _detail(record: Record, event: TransactionReceived, home: int, partitions: int) -> str:
    identifier = "user_id" if event.user_id else "transaction_id"
    place = f"its {identifier} belongs to partition {home} of {partitions}"
    match _cause(record, event):
        case "no_key":
            return f"{place}, and the record has no key: use the {identifier} as key"
        case "key":
            return f"{place}, and the record has another key: use the {identifier} as key"
        case _:
            return (
                f"{place}: its producer does not partition by murmur2 (`partitioner=murmur2_random` in librdkafka's"
                " clients), or does not know that the topic has grown"
            )
