"""What the stream knows of a partition that is assigned to it."""

from __future__ import annotations

from dataclasses import dataclass

from centinela_predictor.state.partition_state import PartitionState


@dataclass(frozen=True, slots=True)
class Deferral:
    """The first transaction that waits, by its offset, and since when (monotonic)."""

    offset: int
    since: float


@dataclass(slots=True)
class OwnedPartition:
    """An assigned partition.

    Attributes:
        position: The committed offset that *state* belongs to; None before the first.
        last_record_at: When its last records arrived (monotonic).
        announced: The last watermark announced and, where that is ``IDLE``, the partition's end.
        deferral: Set while a transaction of it waits.
        quiet_end: Its end offset, while none of its records waits to be read.
    """

    state: PartitionState
    position: int | None
    last_record_at: float
    announced: tuple[int, int] | None = None
    deferral: Deferral | None = None
    quiet_end: int | None = None

    def received(self, now: float) -> None:
        """Note that records arrived."""
        self.last_record_at = now
        self.quiet_end = None
