"""Any bytes on any topic, through the code of its consumers: an event or a dead letter, never the end of a process.

A consumer lives through all examples of its test, as a process does.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from centinela import schemas
from centinela.consuming.handler import Handler
from centinela.consuming.loop import ConsumerLoop, SinkLoop
from centinela.consuming.options import LoopOptions
from centinela.consuming.table_reader import TableReader
from centinela.deadletters.record import DeadLetterCap
from centinela.errors import ModelRejected
from centinela.events import (
    LabelReported,
    ModelPromoted,
    RetrainRequested,
    TrainingCompleted,
    TransactionReceived,
    TransactionScored,
    encode,
)
from centinela.kafka.port import Record
from centinela.liveness.health import Health
from centinela.model.registry import Registry
from centinela.settings import Settings
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeProducer, FakeTransactionalProducer
from centinela.testing.registry_store import FakeStore
from centinela_drift.evaluator import DriftHandler
from centinela_drift.service import DriftService
from centinela_drift.settings import DriftSettings
from centinela_drift.state_store import SnapshotStore
from centinela_predictor.feast.sink import FeastSink
from centinela_predictor.gateway.replica import StateReplica, VerdictFollower
from centinela_predictor.gateway.verdict_cache import VerdictCache
from centinela_predictor.models.bundle_store import BundleStore
from centinela_predictor.models.follower import ModelFollower
from centinela_predictor.models.slot import ModelSlot
from centinela_registry_watcher.watcher import Watcher
from centinela_trainer.archive.store import LABELS, PREDICTIONS, ArchiveStore
from centinela_trainer.archive.writer import Archive
from centinela_trainer.retraining.handler import RetrainHandler
from tests.support import drift_world, predictor_world
from tests.support.hostile_records import Sent, records

NOW = datetime(2026, 11, 29, tzinfo=UTC)
FEW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Feed = Callable[[list[Sent]], None]


def example(kind: type) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(schemas.example(kind))
    return body


def write(broker: FakeBroker, topic: str, sent: Sequence[Sent]) -> None:
    for value, timestamp_ms in sent:
        broker.append(topic, value, b"k", timestamp_ms=timestamp_ms)


def dead_letters(broker: FakeBroker, topic: str) -> set[int]:
    """Offsets of the records of *topic* that became one; fails where a consumer's own error did."""
    headers = [dict(record.headers) for record in broker.records(f"{topic}-dlq")]
    assert {h["dlq.reason"] for h in headers} <= REASONS
    return {int(h["dlq.offset"]) for h in headers}


REASONS = {
    b"conflict",
    b"empty",
    b"too_large",
    b"malformed_json",
    b"invalid_field",
    b"invalid_pane",
    b"invalid_verdict",
    b"unsupported_version",
    b"time_before_1970",
    b"time_in_future",
    b"histogram_shape",
}


class Rig:
    """A consumer of *topic* in its loop, on a broker with one partition of each topic."""

    def __init__(self, topic: str, handler: Handler, transactional: bool = False) -> None:
        self.broker = FakeBroker(clock=FixedClock(NOW))
        for name in (topic, f"{topic}-dlq", "model-events"):
            self.broker.create(name, 1)
        self.topic, self._handler, self._transactional = topic, handler, transactional
        self._loop = self._started()

    def _started(self) -> ConsumerLoop | SinkLoop:
        options = LoopOptions(
            poll_timeout_s=0.0, idle_s=0.0, defer_s=0.0, cap=DeadLetterCap(max_share=1.0), clock=FixedClock(NOW)
        )
        consumer, stop = FakeConsumer(self.broker, "group"), threading.Event()
        if self._transactional:
            producer = FakeTransactionalProducer(self.broker, "id")
            return ConsumerLoop(
                consumer, producer, self._handler, topics=[self.topic], health=Health(), stop=stop, options=options
            )
        return SinkLoop(
            consumer,
            FakeProducer(self.broker),
            self._handler,
            topics=[self.topic],
            health=Health(),
            stop=stop,
            options=options,
        )

    def feed(self, sent: list[Sent]) -> None:
        """Write *sent*, and consume until all of it is committed."""
        write(self.broker, self.topic, sent)
        [partition] = self.broker.partitions(self.topic)
        for _ in range(50):
            if self.broker.committed("group").get(partition, 0) >= self.broker.stable_end(partition):
                return
            self._loop.run_once()
        raise AssertionError("the loop does not come to the end of its topic")


def all_examples(kind: type, feed: Feed, **changes: object) -> None:
    """Put any records of a topic whose event is *kind* through *feed*."""

    @FEW
    @given(records(example(kind) | changes))
    def holds(sent: list[Sent]) -> None:
        feed(sent)

    holds()


@pytest.mark.parametrize(("stream", "kind"), [(LABELS, LabelReported), (PREDICTIONS, TransactionScored)])
def test_the_archive(tmp_path: Path, stream: str, kind: type) -> None:
    archive = Archive(
        ArchiveStore(tmp_path),
        {stream: stream},
        FixedClock(NOW),
        flush_rows=10**9,
        flush_s=10**9,
        identify=lambda topic: rig.broker.identify(topic),
    )
    rig = Rig(stream, archive)
    archived = 0

    def feed(sent: list[Sent]) -> None:
        nonlocal archived
        rig.feed(sent)
        archived += archive.buffered
        archive.flush()
        assert archived + len(dead_letters(rig.broker, stream)) == len(rig.broker.records(stream))

    all_examples(kind, feed)
    assert archived
    assert dead_letters(rig.broker, stream)


def test_the_feast_role() -> None:
    shelf: list[int] = []

    class Shelf:
        def push(self, served: Any) -> None:
            shelf.append(len(served))

    rig = Rig("predictions", FeastSink(Shelf(), FixedClock(NOW)))

    def feed(sent: list[Sent]) -> None:
        rig.feed(sent)
        assert sum(shelf) + len(dead_letters(rig.broker, "predictions")) == len(rig.broker.records("predictions"))

    all_examples(TransactionScored, feed)
    assert shelf


def test_the_trainer() -> None:
    class Echo:
        def answer(self, request: RetrainRequested) -> TrainingCompleted:
            return TrainingCompleted(
                model_name=request.model_name,
                request_id=request.request_id,
                outcome="refused",
                reason=request.reason,
                completed_at=request.as_of,
            )

        def cancel(self) -> None:
            """Nothing is under way."""

    rig = Rig("retrain-requests", RetrainHandler(Echo(), "FraudDetector", "model-events"), transactional=True)
    others = 0

    def feed(sent: list[Sent]) -> None:
        nonlocal others
        rig.feed(sent)
        requests = rig.broker.records("retrain-requests")
        dead = dead_letters(rig.broker, "retrain-requests")
        others = sum(
            json.loads(r.value or b"")["model_name"] != "FraudDetector" for r in requests if r.offset not in dead
        )
        assert len(rig.broker.records("model-events")) + others + len(dead) == len(requests)

    all_examples(RetrainRequested, feed)
    assert rig.broker.records("model-events")


def test_the_stream(tmp_path: Path) -> None:
    world = predictor_world.World(tmp_path, partitions=1)
    process = world.stream()
    [partition] = world.broker.partitions("transactions")

    def feed(sent: list[Sent]) -> None:
        write(world.broker, "transactions", sent)
        process.run_until(
            lambda: world.broker.committed("predictor").get(partition, 0) >= world.broker.stable_end(partition)
        )

    all_examples(TransactionReceived, feed, occurred_at="2018-04-01T00:00:00Z")
    dead = dead_letters(world.broker, "transactions")
    taken = {
        json.loads(r.value or b"")["transaction_id"]
        for r in world.broker.records("transactions")
        if r.offset not in dead
    }
    assert taken == set(world.verdicts())
    assert taken


@pytest.mark.parametrize(
    ("topic", "kind"),
    [
        ("feature-panes", None),
        ("labels", LabelReported),
        ("model-events", TrainingCompleted),
        ("model-events", ModelPromoted),
    ],
)
def test_drift(tmp_path: Path, topic: str, kind: type | None) -> None:
    handler, log = DriftHandler(DriftSettings()), drift_world.FakeEventLog()
    world = drift_world.World()
    service = DriftService(
        DriftSettings(dead_letter_max_share=1.0),
        handler,
        SnapshotStore(tmp_path),
        drift_world.FakeReferences(world),
        drift_world.FakeReporter(),
        Health(),
        FixedClock(drift_world.NOW),
    )
    broker = FakeBroker(clock=FixedClock(drift_world.NOW))
    [pane, *_], _ = world.day(0)
    base = json.loads(encode(pane)) if kind is None else example(kind)
    taken = 0

    async def take(fresh: Sequence[Record]) -> None:
        for record in fresh:
            await service.take(record, log)

    @FEW
    @given(records(base))
    def holds(sent: list[Sent]) -> None:
        nonlocal taken
        before = len(broker.records(topic))
        write(broker, topic, sent)
        asyncio.run(take(broker.records(topic)[before:]))
        while (end := handler.due()) is not None:
            handler.evaluate(end, None)
        everything = broker.records(topic)
        assert list(handler.offsets.values()) == [len(everything)]
        reasons = {dict(record.headers)["dlq.reason"] for record in log.of(f"{topic}-dlq")}
        assert reasons <= REASONS
        taken = len(everything) - len(log.of(f"{topic}-dlq"))

    holds()
    assert taken


def test_the_gateway_s_followers(tmp_path: Path) -> None:
    world = predictor_world.World(tmp_path, partitions=1)
    cache = VerdictCache(1_000)
    replica = StateReplica(world.layout, cache, world.clock, world.stores(tmp_path))
    reader = FakeConsumer(world.broker)
    table = TableReader(reader, ["transactions"])
    replica.seek_start(reader, table, reader.partitions_of("transactions"))
    follower = VerdictFollower(cache, world.layout)

    def follows(topic: str, apply: Callable[[Sequence[Record]], None]) -> Feed:
        def feed(sent: list[Sent]) -> None:
            before = len(world.broker.records(topic))
            write(world.broker, topic, sent)
            apply(world.broker.records(topic)[before:])

        return feed

    all_examples(
        TransactionReceived, follows("transactions", replica.apply_transactions), occurred_at="2018-04-01T00:00:00Z"
    )
    all_examples(LabelReported, follows("labels", replica.apply_terminals))
    all_examples(TransactionScored, follows("predictions", follower.apply))
    received = TransactionReceived(transaction_id="new", occurred_at=predictor_world.START, amount=1.0, user_id="u-42")
    assert replica.features([received]).shape == (1, len(world.layout.names))
    follower.apply([Record("predictions", 0, 0, None, schemas.example(TransactionScored))])
    assert cache.get(example(TransactionScored)["transaction_id"]) is not None


def test_the_predictor_s_model_follower(tmp_path: Path) -> None:
    class Empty:
        def download(self, version: str, dest: Path) -> Path:
            raise ModelRejected("missing_file: manifest.json")

    def load(folder: Path) -> Any:
        raise AssertionError("nothing can be loaded")

    broker, stop = FakeBroker(clock=FixedClock(NOW)), threading.Event()
    stop.set()
    broker.create("model-events", 1)
    follower = ModelFollower(
        events=TableReader(FakeConsumer(broker), ["model-events"]),
        store=BundleStore(tmp_path, lambda folder: None, FixedClock(NOW)),
        registry=Empty(),
        load=load,
        slot=ModelSlot(),
        producer=FakeProducer(broker),
        health=Health(),
        clock=FixedClock(NOW),
        model_name="FraudDetector",
        replica="stream-0",
        retry_s=0.0,
    )

    def feed(sent: list[Sent]) -> None:
        write(broker, "model-events", sent)
        follower.step(0.0, stop)

    all_examples(ModelPromoted, feed)
    assert any(b"ModelRejected" in (record.value or b"") for record in broker.records("model-events"))


def test_the_registry_watcher() -> None:
    broker, clock, store = FakeBroker(clock=FixedClock(NOW)), FixedClock(NOW), FakeStore()
    registry = Registry(Settings(), store=store, clock=clock)
    store.add_version(registry.model_name, NOW)
    registry.promote("1")
    watcher = Watcher(
        registry,
        TableReader(FakeConsumer(broker), ["model-events"]),
        FakeProducer(broker),
        model_name=registry.model_name,
        poll_s=0.01,
        health=Health(),
        clock=clock,
        stop=threading.Event(),
    )

    def feed(sent: list[Sent]) -> None:
        write(broker, "model-events", sent)
        watcher.step()

    all_examples(ModelPromoted, feed)
    assert watcher.step() == []
