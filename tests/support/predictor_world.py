"""A stream on a broker in memory, for the tests of the stream: build, run, crash, look at what came out."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from centinela.consuming.loop import ConsumerLoop
from centinela.consuming.options import LoopOptions
from centinela.deadletters.record import DeadLetterCap
from centinela.events import FeaturePane, LabelReported, TransactionReceived, TransactionScored, encode
from centinela.features.backfill import build_features
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.features.snapshots.shared_store import SharedStorage
from centinela.features.snapshots.store import SnapshotStore
from centinela.liveness.health import Health
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeTransactionalProducer
from centinela.topics import CATALOGUE, WITH_DLQ
from centinela_predictor.models.routing import Router
from centinela_predictor.models.scoring import ScoringCore
from centinela_predictor.models.slot import ModelSlot
from centinela_predictor.state.admission import SCHEMA_ONLY, AdmissionRules
from centinela_predictor.state.misrouted import OnMisrouted
from centinela_predictor.state.partition_store import PartitionStores
from centinela_predictor.state.terminal_feed import TerminalFeed
from centinela_predictor.stream.deferral import StreamLimits
from centinela_predictor.stream.handler import StreamHandler
from tests.support.served_models import served

LAYOUT = FeatureLayout(("v1", "v2"))
START = datetime(2018, 4, 1, tzinfo=UTC)
NOW = datetime(2023, 12, 1, tzinfo=UTC)


class World:
    """A broker, models and a clock that outlive the stream processes of a test."""

    def __init__(
        self,
        folder: Path,
        partitions: int = 2,
        model: str | None = "1",
        layout: FeatureLayout = LAYOUT,
        rules: AdmissionRules = SCHEMA_ONLY,
    ) -> None:
        self.layout = layout
        self.rules = rules
        self.folder, self.clock, self.slot = folder, FixedClock(NOW), ModelSlot()
        self.broker = FakeBroker(partitions, auto_create=False, clock=self.clock)
        for topic in CATALOGUE:
            self.broker.create(topic.name, topic.partitions or partitions)
        for topic in WITH_DLQ:
            self.broker.create(topic.dlq, partitions)
        self._writers = itertools.count(1)
        if model is not None:
            self.slot.swap("champion", served(model))

    def send(self, *transactions: TransactionReceived, partition: int | None = None) -> None:
        for transaction in transactions:
            key = (transaction.user_id or transaction.transaction_id).encode()
            self.broker.append("transactions", encode(transaction), key, partition=partition)

    def report(self, *labels: LabelReported) -> None:
        for label in labels:
            self.broker.append("labels", encode(label), (label.user_id or label.transaction_id).encode())

    def stream(
        self,
        name: str = "0",
        *,
        batch: int = 50,
        snapshot_interval_s: float = 1e9,
        limits: StreamLimits | None = None,
        shared: SharedStorage | None = None,
        folder: Path | None = None,
        on_misrouted: OnMisrouted = "count",
    ) -> Process:
        """A process called *name*, on the disk *folder* (the world's own)."""
        return Process(
            self,
            name,
            batch,
            snapshot_interval_s,
            limits or StreamLimits(),
            next(self._writers),
            shared,
            folder or self.folder,
            on_misrouted,
        )

    def stores(self, folder: Path, shared: SharedStorage | None = None) -> PartitionStores:
        """Where the state of partitions is kept."""
        return PartitionStores(
            folder,
            lambda: self.broker.identify("transactions"),
            lambda: FakeConsumer(self.broker),
            self.clock,
            shared=shared,
            layout=self.layout,
            rules=self.rules,
        )

    def terminals(self, folder: Path, name: str) -> SnapshotStore:
        """Where the stream *name* keeps terminal state."""
        incarnations = "-".join(self.broker.identify(topic).id for topic in ("terminal-activity", "labels"))
        return SnapshotStore(folder / f"terminals-{name}" / incarnations)

    def grow(self, partitions: int) -> None:
        """Give ``transactions``, and the topics that follow it partition by partition, more of them."""
        for topic in ("transactions", "terminal-activity", "feature-panes"):
            self.broker.grow(topic, partitions)

    def predictions(self) -> list[TransactionScored]:
        return [msgspec.json.decode(r.value or b"", type=TransactionScored) for r in self.broker.records("predictions")]

    def verdicts(self) -> dict[str, TransactionScored]:
        """By transaction id; fails where one has two."""
        predictions = self.predictions()
        verdicts = {p.transaction_id: p for p in predictions}
        assert len(verdicts) == len(predictions), "a transaction has two verdicts"
        return verdicts

    def panes(self) -> list[FeaturePane]:
        return [msgspec.json.decode(r.value or b"", type=FeaturePane) for r in self.broker.records("feature-panes")]

    def dead(self) -> list[tuple[str, bytes | None]]:
        """Reason and value of each dead letter."""
        return [(dict(r.headers)["dlq.reason"].decode(), r.value) for r in self.broker.records("transactions-dlq")]


class Process:
    """One stream process. ``kill`` it and it leaves nothing but what it committed and wrote to disk."""

    def __init__(
        self,
        world: World,
        name: str,
        batch: int,
        snapshot_interval_s: float,
        limits: StreamLimits,
        writer: int,
        shared: SharedStorage | None,
        folder: Path,
        on_misrouted: OnMisrouted,
    ) -> None:
        self._world = world
        self.health, self.stop = Health("kafka"), threading.Event()
        self.feed = TerminalFeed(
            FakeConsumer(world.broker), lambda: world.terminals(folder, name), world.clock, world.layout
        )
        self.consumer = FakeConsumer(world.broker, "predictor")
        self.handler = StreamHandler(
            layout=world.layout,
            core=ScoringCore(world.slot, Router("salt", 0.5)),
            slot=world.slot,
            feed=self.feed,
            reader=self.consumer,
            stores=world.stores(folder, shared),
            snapshot_interval_s=snapshot_interval_s,
            clock=world.clock,
            health=self.health,
            writer=writer,
            limits=limits,
            on_misrouted=on_misrouted,
        )
        self.producer = FakeTransactionalProducer(world.broker, f"predictor-{name}")
        self.loop = ConsumerLoop(
            self.consumer,
            self.producer,
            self.handler,
            topics=["transactions"],
            health=self.health,
            stop=self.stop,
            options=LoopOptions(
                batch=batch,
                poll_timeout_s=0.0,
                idle_s=0.0,
                defer_s=0.1,
                clock=world.clock,
                cap=DeadLetterCap(max_share=1.0),
            ),
        )

    def run_until(self, done: Callable[[], bool], *, steps: int = 2_000, pace_s: float = 0.01) -> None:
        """Step, *pace_s* apart by the world's clock, until *done*; fails after *steps*."""
        for _ in range(steps):
            if done():
                return
            self.step(pace_s)
        raise AssertionError(f"not done after {steps} steps; waits for {self.health.unmet()}")

    def step(self, pace_s: float = 0.01) -> None:
        self._world.clock.set(self._world.clock.now() + timedelta(seconds=pace_s))
        self.loop.run_once()

    def run_until_verdicts(self, count: int, **options: Any) -> None:
        self.run_until(lambda: len(self._world.predictions()) >= count, **options)

    def kill(self) -> None:
        """End as ``kill -9`` would; the group notices."""
        group = self._world.broker.group("predictor")
        if self.consumer in group.members:
            group.members.remove(self.consumer)
            group.owner = {p: m for p, m in group.owner.items() if m is not self.consumer}
            self._world.broker.rebalance("predictor")

    def end(self) -> None:
        """End in good order."""
        self.stop.set()
        self.loop.run()


def transaction(
    number: int,
    *,
    user: str | None = "u1",
    terminal: str | None = None,
    at: datetime = START,
    amount: float = 100.0,
    **more: Any,
) -> TransactionReceived:
    return TransactionReceived(
        transaction_id=f"t{number:05d}",
        occurred_at=at,
        amount=amount,
        user_id=user,
        terminal_id=terminal,
        **more,
    )


def vectors_of_the_whole_table(
    transactions: Sequence[TransactionReceived], labels: Sequence[LabelReported], layout: FeatureLayout = LAYOUT
) -> dict[str, bytes]:
    """The vector of each transaction by its id, computed from the whole table at once."""
    table = pd.DataFrame(
        [
            {
                "transaction_id": t.transaction_id,
                "user_id": t.user_id,
                "terminal_id": t.terminal_id,
                "occurred_at": t.occurred_at,
                "amount": t.amount,
                **t.attributes,
            }
            for t in transactions
        ]
    )
    reported = pd.DataFrame(
        [
            {
                "transaction_id": x.transaction_id,
                "is_fraud": x.is_fraud,
                "occurred_at": x.occurred_at,
                "reported_at": x.reported_at,
            }
            for x in labels
        ]
    )
    matrix = build_features(table, reported, layout).to_numpy()
    return {t.transaction_id: row for t, row in zip(transactions, pack_rows(matrix), strict=True)}


def frauds_reported(transactions: Sequence[TransactionReceived]) -> list[LabelReported]:
    """*transactions* as frauds, each reported three days after it."""
    return [
        LabelReported(
            transaction_id=t.transaction_id,
            is_fraud=True,
            occurred_at=t.occurred_at,
            reported_at=t.occurred_at + timedelta(days=3),
            user_id=t.user_id,
        )
        for t in transactions
    ]


def ids(transactions: Sequence[TransactionReceived]) -> list[str]:
    return [t.transaction_id for t in transactions]
