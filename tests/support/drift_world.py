"""A small world for tests: scored transactions by event day with late labels, and fakes of what the service
talks to."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from centinela.errors import DependencyUnavailable
from centinela.events import Event, FeaturePane, LabelReported, encode
from centinela.features.keys import hash_ids
from centinela.kafka.port import Outgoing, Record, TopicPartition
from centinela.model.bundle import GOLDEN, SKOPS, Manifest, Parity, write
from centinela.model.bundle import Reference as FrozenReference
from centinela.model.metrics import average_precision
from centinela.model.panes import PaneModel, build_panes, pane_rows
from centinela.model.reference import histogram, reference_edges, score_histogram
from centinela.times import days_to_ms, from_ms, to_ms
from centinela_drift.decision.detection import Reference
from centinela_drift.evaluator import Evaluation
from centinela_drift.references import reference_of

START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = START + timedelta(days=3 * 365)
FEATURES = ("amount", "user_count_7d", "v1")
THRESHOLD = 0.5
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def day_ms(day: float) -> int:
    """Milliseconds of the start of a day of the world."""
    return to_ms(START) + days_to_ms(day)


@dataclass(frozen=True)
class World:
    """Transactions of a fixed rate, one in twenty a fraud that the model mostly finds.

    Args:
        attack_from: Day from which frauds look genuine to the model (a new pattern); they are as frequent as before.
        season: Days of a busy season [from, to): users are twice as active, amounts higher; the model ranks as well as
            before.
        hole_from: Day from which ``v1`` is missing in half of the rows and the model misses every second fraud.
        reported_share: Share of frauds that are ever reported.
    """

    per_day: int = 600
    partitions: int = 4
    attack_from: int | None = None
    season: tuple[int, int] | None = None
    hole_from: int | None = None
    reported_share: float = 0.9
    seed: int = 7
    version: str = "1"

    def day(self, day: int) -> tuple[list[FeaturePane], list[LabelReported]]:
        """Panes and labels of the transactions of one day; the same every time."""
        rng = np.random.default_rng((self.seed, day))
        busy = self.season is not None and self.season[0] <= day < self.season[1]
        n = int(self.per_day * (1.5 if busy else 1))
        is_fraud, scores, matrix = self._draw(rng, n, day, busy)
        names = [f"{self.version}-{day}-{i}" for i in range(n)]
        times = np.sort(rng.integers(day_ms(day), day_ms(day + 1), n))
        rows = pane_rows(
            hash_ids(names),
            hash_ids([f"user-{u}" for u in rng.integers(0, 200, n)]),
            times,
            scores,
            scores >= THRESHOLD,
        )
        panes: list[FeaturePane] = []
        home = rng.integers(0, self.partitions, n)
        model = PaneModel(self.version, "champion", np.arange(len(FEATURES)), self.manifest().reference.edge_matrix())
        for partition in range(self.partitions):
            mine = np.flatnonzero(home == partition)
            panes += build_panes(
                rows[mine],
                matrix[mine],
                np.zeros(len(mine), np.intp),
                [model],
                partition=partition,
                watermark_ms=int(times[mine].max()),
            )
        reported = is_fraud & (rng.random(n) < self.reported_share)
        labels = [
            LabelReported(
                transaction_id=names[i],
                is_fraud=True,
                occurred_at=from_ms(int(times[i])),
                reported_at=from_ms(int(times[i])) + timedelta(days=float(delay)),
            )
            for i, delay in zip(np.flatnonzero(reported), rng.uniform(1, 6, int(reported.sum())), strict=True)
        ]
        return panes, labels

    def stray(self, day: float, users: Sequence[int] = (0,), partition: int = 0) -> FeaturePane:
        """A pane of one transaction of each of *users* on a day of their own."""
        n = len(users)
        names = [f"stray-{day}-{partition}-{user}" for user in users]
        rows = pane_rows(
            hash_ids(names),
            hash_ids([f"user-{user}" for user in users]),
            np.full(n, day_ms(day)),
            np.full(n, 0.2),
            np.zeros(n, np.bool_),
        )
        edges = self.manifest().reference.edge_matrix()
        model = PaneModel(self.version, "champion", np.arange(len(FEATURES)), edges)
        matrix, models = np.full((n, len(FEATURES)), 9.0), np.zeros(n, np.intp)
        [pane] = build_panes(rows, matrix, models, [model], partition=partition, watermark_ms=day_ms(day))
        return pane

    def manifest(self) -> Manifest:
        """The bundle's manifest of the version that scores."""
        return _manifest(self.seed, self.reported_share)

    def write_bundle(self, dest: Path) -> Path:
        """A bundle that verifies, with no model in it."""
        write(dest, self.manifest(), {SKOPS: b"no model", GOLDEN: b"no rows"})
        return dest

    def _draw(self, rng: np.random.Generator, n: int, day: int, busy: bool) -> tuple[Bools, Floats, Floats]:
        is_fraud = rng.random(n) < 0.05
        detectable = is_fraud.copy()
        if self.attack_from is not None and day >= self.attack_from:
            detectable &= rng.random(n) < 0.2
        if self.hole_from is not None and day >= self.hole_from:
            detectable &= rng.random(n) < 0.5
        scores = np.clip(rng.normal(np.where(detectable, 0.65, 0.2), 0.12), 0, 1)
        matrix = np.column_stack(
            [rng.lognormal(3.4 if busy else 3.0, 1.0, n), rng.poisson(16 if busy else 8, n), rng.normal(size=n)]
        )
        if self.hole_from is not None and day >= self.hole_from:
            matrix[rng.random(n) < 0.5, 2] = np.nan
        return is_fraud, scores, matrix.astype(np.float64)


@lru_cache(maxsize=8)
def _manifest(seed: int, reported_share: float) -> Manifest:
    """Its average precision rests on reported frauds, as a trainer's does."""
    rng = np.random.default_rng(seed)
    is_fraud, scores, matrix = World()._draw(rng, 20_000, 0, busy=False)
    reported = is_fraud & (rng.random(len(is_fraud)) < reported_share)
    edges = reference_edges(matrix)
    frozen = FrozenReference(
        bins=10,
        rows=len(matrix),
        edges=tuple(tuple(row[np.isfinite(row)].tolist()) for row in edges),
        counts=tuple(tuple(row) for row in histogram(matrix, edges).tolist()),
        recent_rows=len(scores),
        score_counts=tuple(score_histogram(scores).tolist()),
        alert_rate=float((scores >= THRESHOLD).mean()),
        review_rate=0.2,
        average_precision=average_precision(reported, scores),
    )
    return Manifest(
        model_name="FraudDetector",
        model_kind="fake",
        layout_id="v1:v1",
        feature_names=FEATURES,
        backend="sklearn",
        threshold=THRESHOLD,
        review_threshold=0.4,
        files={},
        reference=frozen,
        dataset_digest="md5:0",
        request_id="request-0",
        code_commit="0",
        created_at=START,
        versions={},
        parity=Parity(rows=0, missing_rows=0, edge_rows=0, tolerance=0.0, attempts=()),
    )


@dataclass
class Feed:
    """Records with offsets, as a log would number them."""

    panes_topic: str = "feature-panes"
    labels_topic: str = "labels"
    _next: dict[TopicPartition, int] = field(default_factory=dict)

    def records(self, panes: Sequence[FeaturePane] = (), labels: Sequence[LabelReported] = ()) -> list[Record]:
        """The events as the next records of their partitions, labels first."""
        return [
            *(self.record(self.labels_topic, 0, label) for label in labels),
            *(self.record(self.panes_topic, pane.partition, pane) for pane in panes),
        ]

    def record(self, topic: str, partition: int, event: Event | bytes | None) -> Record:
        """One event (or raw value) as the next record of a partition."""
        source = TopicPartition(topic, partition)
        offset = self._next.get(source, 0)
        self._next[source] = offset + 1
        return Record(topic, partition, offset, b"key", encode(event) if isinstance(event, Event) else event)


class FakeEventLog:
    """Keeps what is sent; every partition is read to its end."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.paused: set[str] = set()
        self.refuse = False

    def of(self, topic: str) -> list[Outgoing]:
        """What was sent to *topic*."""
        return [record for record in self.sent if record.topic == topic]

    async def send(self, record: Outgoing) -> None:
        if self.refuse:
            raise DependencyUnavailable("the log takes nothing")
        self.sent.append(record)

    async def ends(self) -> Mapping[TopicPartition, int]:
        return {}

    async def position(self, partition: TopicPartition) -> int:
        return 0

    def pause(self, topics: Collection[str]) -> None:
        self.paused |= set(topics)

    def resume(self) -> None:
        self.paused.clear()


class FakeReferences:
    """References of a world; unavailable for the first ``failures`` calls."""

    def __init__(self, world: World, failures: int = 0) -> None:
        self._reference = reference_of(world.manifest(), world.version)
        self.failures = failures
        self.asked = asyncio.Event()

    async def get(self, version: str) -> Reference:
        self.asked.set()
        if self.failures:
            self.failures -= 1
            raise DependencyUnavailable("the registry does not answer")
        return self._reference


class FakeReporter:
    """Records which reports are begun; one is being made until it ``ends``."""

    def __init__(self) -> None:
        self.begun: list[Evaluation] = []
        self.running = False
        self._path: str | None = None

    def begin(self, evaluation: Evaluation, reference: Reference) -> None:
        self.begun.append(evaluation)
        self.running = True

    def end(self, path: str | None) -> None:
        """The report that is being made is at *path*, or was given up."""
        self.running = False
        self._path = path

    def finished(self) -> str | None:
        path = self._path
        self._path = None
        return path
