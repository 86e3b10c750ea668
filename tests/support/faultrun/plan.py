"""Which faults, in which order, on whom and for how long: a function of the seed alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "kill",
    "term",
    "kill_predictors",
    "kill_uncommitted",
    "kill_unsnapshotted",
    "kill_snapshotting",
    "kill_loading",
    "promote_damaged",
    "broker_killed",
    "broker_paused",
    "brokers_killed",
    "brokers_paused",
    "predictor_paused",
    "zombie",
    "rebalance_storm",
    "mlflow_away",
    "archive_disk_full",
    "snapshot_disk_full",
    "snapshot_damaged",
    "bundle_damaged",
    "parquet_damaged",
    "slow_consumer",
    "retrain_killed",
    "offsets_deleted",
    "codecs_mixed",
    "partitions_added",
    "timestamps_in_another_unit",
]


@dataclass(frozen=True)
class Shape:
    """How often a kind comes, in addition to the one time that each comes (with 0 only where it is asked for), and how
    long it lasts, seconds."""

    weight: float
    hold_s: tuple[float, float] = (0.0, 0.0)


SHAPES: dict[Kind, Shape] = {
    "kill": Shape(9),
    "term": Shape(6),
    "kill_predictors": Shape(2),
    "kill_uncommitted": Shape(3),
    "kill_unsnapshotted": Shape(2),
    "kill_snapshotting": Shape(2),
    "kill_loading": Shape(2),
    "promote_damaged": Shape(1),
    "broker_killed": Shape(3, (0, 4)),
    "broker_paused": Shape(2, (3, 10)),
    "brokers_killed": Shape(1.5, (0, 3)),
    "brokers_paused": Shape(1.5, (2, 8)),
    "predictor_paused": Shape(0.7, (22, 26)),
    "zombie": Shape(0.7),
    "rebalance_storm": Shape(0.7),
    "mlflow_away": Shape(1.5, (4, 8)),
    "archive_disk_full": Shape(1.5, (4, 8)),
    "snapshot_disk_full": Shape(1.5, (4, 8)),
    "snapshot_damaged": Shape(2),
    "bundle_damaged": Shape(1.5),
    "parquet_damaged": Shape(0.7),
    "slow_consumer": Shape(1.5, (5, 10)),
    "retrain_killed": Shape(1, (1, 8)),
    "offsets_deleted": Shape(1),
    "codecs_mixed": Shape(1.5, (3, 8)),
    "partitions_added": Shape(0),
    "timestamps_in_another_unit": Shape(1, (3, 6)),
}
QUICK: tuple[Kind, ...] = (
    "kill_uncommitted",
    "kill_snapshotting",
    "brokers_paused",
    "kill",
    "snapshot_damaged",
    "brokers_killed",
    "term",
)
"""For the run of two minutes."""
SERVICES = ("stream", "stream-1", "gateway", "ingest", "archive", "trainer", "drift", "registry-watcher")
_OFTEN = (5, 5, 5, 3, 3, 1, 2, 2)
_PREDICTORS = ("stream", "stream-1")
_OVERLAP = 0.25


@dataclass(frozen=True)
class Fault:
    """One fault to come.

    Attributes:
        target: A service; a broker's number for faults of one broker.
        hold_s: How long it lasts, where that can be chosen.
        gap_s: Pause before it.
        overlaps: Whether it comes without waiting for the recovery from the one before.
        seed: For what it decides by chance itself.
    """

    number: int
    kind: Kind
    target: str
    hold_s: float
    gap_s: float
    overlaps: bool
    seed: int


def schedule(seed: int, count: int, brokers: int, kinds: Sequence[Kind] | None = None) -> list[Fault]:
    """*count* faults. Where there is room each kind comes once at least, in an order of chance; *kinds* given come in
    their order."""
    chance = random.Random(seed)  # noqa: S311
    if kinds is None:
        known = [kind for kind, shape in SHAPES.items() if shape.weight]
        first = chance.sample(known, min(count, len(known)))
        more = chance.choices(known, [SHAPES[kind].weight for kind in known], k=max(0, count - len(first)))
        order = first + more
        chance.shuffle(order)
    else:
        order = [kinds[n % len(kinds)] for n in range(count)]
    faults: list[Fault] = []
    for number, kind in enumerate(order, 1):
        target = chance.choices(SERVICES, _OFTEN)[0]
        broker, predictor = str(chance.randrange(brokers)), chance.choice(_PREDICTORS)
        if kind.startswith("broker_"):
            target = broker
        elif kind not in ("kill", "term"):
            target = predictor
        faults.append(
            Fault(
                number,
                kind,
                target,
                round(chance.uniform(*SHAPES[kind].hold_s), 2),
                round(chance.uniform(0.3, 2.5), 2),
                chance.random() < _OVERLAP,
                chance.getrandbits(32),
            )
        )
    return faults
