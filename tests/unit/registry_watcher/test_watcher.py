"""The watcher on an in-memory Kafka and registry."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from centinela.clock import SystemClock
from centinela.codec import ModelEventDecoder
from centinela.consuming.table_reader import TableReader
from centinela.errors import CentinelaError, DependencyUnavailable
from centinela.events import Event, ModelLoaded, ModelPromoted, encode
from centinela.kafka.headers import header
from centinela.liveness.health import Health
from centinela.liveness.progress import Patience
from centinela.model.registry import CHALLENGER, CHAMPION, Registry
from centinela.settings import Settings
from centinela.telemetry.tracing import TRACEPARENT
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeProducer
from centinela.testing.registry_store import FakeStore
from centinela.topics import MODEL_EVENTS
from centinela_registry_watcher.watcher import Aliases, Watcher

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TOPIC = MODEL_EVENTS.name


class World:
    """A registry with three versions, a broker, and as many watchers as a test wants."""

    def __init__(self) -> None:
        self.broker = FakeBroker()
        self.store = FakeStore()
        self.clock = FixedClock(NOW)
        self.registry = Registry(Settings(), store=self.store, clock=self.clock)
        for _ in range(3):
            self.store.add_version(self.registry.model_name, NOW)
        self.health = Health()
        self.stop = threading.Event()

    def watcher(self, registry: Aliases | None = None) -> Watcher:
        return Watcher(
            registry or self.registry,
            TableReader(FakeConsumer(self.broker), [TOPIC]),
            FakeProducer(self.broker),
            model_name=self.registry.model_name,
            poll_s=0.01,
            health=self.health,
            clock=self.clock,
            stop=self.stop,
        )

    def told(self) -> list[tuple[str, str | None, int]]:
        decoder = ModelEventDecoder()
        events: list[Event] = [decoder.decode(record.value) for record in self.broker.records(TOPIC)]
        return [(e.alias, e.model_version, e.sequence) for e in events if isinstance(e, ModelPromoted)]


class Frozen:
    """A registry as a stalled watcher remembers it."""

    def __init__(self, **aliases: str) -> None:
        self._aliases = aliases

    def aliases(self) -> Mapping[str, str]:
        return self._aliases

    def restage(self) -> None:
        """Its MLflow refuses writes."""
        raise CentinelaError("MLflow refuses with 400")


@pytest.fixture
def world() -> World:
    return World()


def stages(world: World) -> dict[str, str]:
    return {v.version: v.tags["stage"] for v in world.registry.versions() if "stage" in v.tags}


def test_an_alias_that_was_set_in_mlflow_itself_moves_the_stage_as_well(world: World) -> None:
    watcher = world.watcher()
    world.registry.promote("1")
    watcher.step()
    world.store.set_alias(world.registry.model_name, CHAMPION, "2")
    world.store.set_alias(world.registry.model_name, CHALLENGER, "3")
    watcher.step()
    assert stages(world) == {"1": "Archived", "2": "Production", "3": "Staging"}
    world.store.delete_alias(world.registry.model_name, CHALLENGER)
    watcher.step()
    assert stages(world) == {"1": "Archived", "2": "Production", "3": "Archived"}


def test_stages_that_cannot_be_written_hold_no_announcement_up_and_are_tried_again(world: World) -> None:
    frozen = Frozen(champion="1")
    watcher = world.watcher(frozen)
    with capture_logs() as logs:
        for _ in range(5):
            watcher.step()
    assert [line["event"] for line in logs] == ["model.promoted", "stages.not_written"]
    assert world.told() == [(CHAMPION, "1", 1)]
    frozen.restage = world.registry.restage  # type: ignore[method-assign]
    world.registry.promote("1")
    world.store.set_tag(world.registry.model_name, "stage", "Production", version="2")
    world.clock.set(NOW + timedelta(seconds=2))
    watcher.step()
    assert stages(world) == {"1": "Production", "2": "Archived"}


def test_each_change_of_an_alias_is_announced_once(world: World) -> None:
    watcher = world.watcher()
    assert watcher.step() == []

    world.registry.promote("1")
    watcher.step()
    watcher.step()
    world.registry.set_alias(CHALLENGER, "2")
    watcher.step()
    world.registry.promote("2")
    watcher.step()
    watcher.step()

    assert world.told() == [("champion", "1", 1), ("challenger", "2", 2), ("champion", "2", 3), ("challenger", None, 4)]


def test_the_record_can_be_compacted_and_followed(world: World) -> None:
    world.registry.promote("1")
    world.watcher().step()

    [record] = world.broker.records(TOPIC)
    assert record.key == b"FraudDetector:promoted:champion"
    assert header(record.headers, "ce_type") == "ModelPromoted"
    assert header(record.headers, "ce_id") == "FraudDetector:1"
    assert header(record.headers, TRACEPARENT)


def test_a_restart_goes_on_from_what_it_reads_back(world: World) -> None:
    world.registry.promote("1")
    world.watcher().step()

    restarted = world.watcher()
    assert restarted.step() == []
    world.registry.promote("2")
    restarted.step()

    assert world.told() == [("champion", "1", 1), ("champion", "2", 2)]


def test_other_events_and_other_models_on_the_topic_do_not_matter(world: World) -> None:
    other = ModelPromoted(
        model_name="Other", alias="champion", model_version="9", previous_version=None, sequence=40, observed_at=NOW
    )
    loaded = ModelLoaded(
        model_name="FraudDetector",
        alias="champion",
        model_version="1",
        replica="stream-0",
        sequence=30,
        loaded_at=NOW,
        duration_s=0.1,
    )
    for value in (encode(other), encode(loaded), b"nonsense", None):
        world.broker.append(TOPIC, value)
    world.registry.promote("1")

    [event] = world.watcher().step()
    assert event.sequence == 1


def test_two_watchers_announce_a_change_once_between_them(world: World) -> None:
    first, second = world.watcher(), world.watcher()
    world.registry.promote("1")
    for _ in range(3):
        first.step()
        second.step()
    assert world.told() == [("champion", "1", 1)]


def test_what_a_stalled_watcher_says_late_is_put_right(world: World) -> None:
    stale = world.watcher(Frozen(champion="1"))
    watcher = world.watcher()
    world.registry.promote("3")
    late = stale.step()
    watcher.step()
    assert world.told() == [("champion", "1", 1), ("champion", "3", 2)]

    world.broker.append(TOPIC, encode(late[0]), b"FraudDetector:promoted:champion")
    watcher.step()
    watcher.step()

    assert world.told()[-1] == ("champion", "3", 3)
    assert len(world.told()) == 4


def test_a_kafka_that_is_away_is_waited_for_and_the_change_told_afterwards(world: World) -> None:
    watcher = world.watcher()
    watcher.step()
    world.registry.promote("1")
    world.broker.unavailable = True
    with pytest.raises(DependencyUnavailable):
        watcher.step()
    world.broker.unavailable = False
    watcher.step()
    assert world.told() == [("champion", "1", 1)]


def test_readiness_names_what_is_away_and_returns_with_it(world: World) -> None:
    world.store.unavailable = True
    watcher = world.watcher()
    assert set(world.health.unmet()) == {"kafka", "mlflow"}
    thread = threading.Thread(target=watcher.run)
    thread.start()
    try:
        assert _eventually(
            lambda: set(world.health.unmet()) == {"mlflow"} and "does not answer" in world.health.unmet()["mlflow"]
        )
        world.store.unavailable = False
        world.registry.promote("1")
        assert _eventually(lambda: world.health.ready and world.told() == [("champion", "1", 1)])
    finally:
        world.stop.set()
        thread.join(10)
    assert not thread.is_alive()


def test_a_hint_makes_it_look_at_once(world: World) -> None:
    watcher = Watcher(
        world.registry,
        TableReader(FakeConsumer(world.broker), [TOPIC]),
        FakeProducer(world.broker),
        model_name=world.registry.model_name,
        poll_s=600,
        health=world.health,
        clock=world.clock,
        stop=world.stop,
    )
    thread = threading.Thread(target=watcher.run)
    thread.start()
    try:
        assert _eventually(lambda: world.health.ready)
        world.registry.set_alias(CHAMPION, "2")
        watcher.hint()
        assert _eventually(lambda: world.told() == [("champion", "2", 1)])
    finally:
        world.stop.set()
        thread.join(10)
    assert not thread.is_alive()


def _eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    deadline, tick = time.monotonic() + timeout_s, threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        tick.wait(0.005)
    return True


def test_a_watcher_whose_registry_never_answers_is_not_live(world: World) -> None:
    release = threading.Event()

    class Hangs:
        def aliases(self) -> Mapping[str, str]:
            release.wait(30)
            return {}

        def restage(self) -> None:
            """There is no version."""

    watcher = Watcher(
        Hangs(),
        TableReader(FakeConsumer(world.broker), [TOPIC]),
        FakeProducer(world.broker),
        model_name="FraudDetector",
        poll_s=0.01,
        health=world.health,
        clock=SystemClock(),
        stop=world.stop,
        patience=Patience(0.2),
    )
    thread = threading.Thread(target=watcher.run)
    thread.start()
    deadline = time.monotonic() + 20
    while world.health.live:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    reason = world.health.reason or ""
    world.stop.set()
    release.set()
    thread.join(20)

    assert reason.startswith("registry-watcher is stuck: its thread has made no progress")
    assert not thread.is_alive()
