"""What a consumer loop can be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from centinela.clock import Clock, SystemClock
from centinela.deadletters.record import DeadLetterCap
from centinela.kafka.port import Consumer
from centinela.liveness.progress import PATIENCE, Patience


@dataclass(frozen=True)
class LoopOptions:
    """What both loops can be told; one object for one loop.

    Attributes:
        batch: Most records delivered at once.
        poll_timeout_s: Longest wait for records.
        idle_s: While no records come, the handler's ``idle`` is called at this interval.
        defer_s: How long a partition rests that the handler deferred.
        lag_s: Interval of the measurement of the lag.
        cap: Limit on the share of dead letters.
        service: Label of the metrics, and the loop's name in the log.
        patience: How long the loop may make no progress, or its commits fail on brokers that answer.
        carry_over: Called before the loop subscribes, where the group had another name before.
    """

    batch: int = 1_000
    poll_timeout_s: float = 0.2
    idle_s: float = 1.0
    defer_s: float = 0.1
    lag_s: float = 5.0
    cap: DeadLetterCap = field(default_factory=DeadLetterCap)
    clock: Clock = field(default_factory=SystemClock)
    service: str = ""
    patience: Patience = PATIENCE
    carry_over: Callable[[Consumer, Sequence[str]], None] | None = None
