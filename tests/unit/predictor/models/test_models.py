"""Promotions are followed, bundles kept and verified; a refused one leaves the old model in service."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from centinela.codec import ModelEventDecoder
from centinela.errors import DependencyUnavailable, ModelRejected
from centinela.events import ModelLoaded, ModelLoadRejected, ModelPromoted, encode
from centinela.kafka.port import Record
from centinela.liveness.health import Health
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeProducer
from centinela_predictor.models.bundle_store import BundleStore
from centinela_predictor.models.follower import LONGEST_PAUSE_S, LONGEST_PAUSE_SERVING_S, ModelFollower
from centinela_predictor.models.slot import Alias, ModelSlot
from tests.support.served_models import FakeScorer

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STOP = threading.Event()


def verify(folder: Path) -> None:
    if (folder / "digest").read_text() != "sound":
        raise ModelRejected("digest differs")


def load(folder: Path) -> FakeScorer:
    verify(folder)
    match (folder / "model").read_text():
        case "diverges":
            raise ModelRejected("the golden set differs")
        case "unreadable":
            raise PermissionError("the disk refuses to read")
    return FakeScorer()


class Registry:
    """Versions by content; counts downloads."""

    def __init__(self) -> None:
        self.models = {"1": "good", "2": "good", "3": "diverges"}
        self.digests: dict[str, str] = {}
        self.unavailable = False
        self.downloads: list[str] = []

    def download(self, version: str, dest: Path) -> Path:
        self.downloads.append(version)
        if self.unavailable:
            raise DependencyUnavailable("MLflow does not answer")
        if version not in self.models:
            raise ModelRejected("missing_file: manifest.json")
        bundle = dest / "bundle"
        bundle.mkdir(parents=True)
        (bundle / "model").write_text(self.models[version])
        (bundle / "digest").write_text(self.digests.get(version, "sound"))
        return bundle


class Events:
    """``model-events`` as a test tells it."""

    def __init__(self) -> None:
        self.coming: deque[Record] = deque()
        self.caught_up = True
        self.unavailable = False

    def poll(self, timeout_s: float) -> Sequence[Record]:
        if self.unavailable:
            raise DependencyUnavailable("Kafka does not answer")
        taken = list(self.coming)
        self.coming.clear()
        return taken

    def at_end(self) -> bool:
        return self.caught_up

    def promote(
        self, version: str | None, sequence: int, alias: Alias = "champion", model: str = "FraudDetector"
    ) -> None:
        event = ModelPromoted(
            model_name=model,
            alias=alias,
            model_version=version,
            previous_version=None,
            sequence=sequence,
            observed_at=NOW,
        )
        self.raw(encode(event))

    def raw(self, value: bytes | None) -> None:
        self.coming.append(Record("model-events", 0, 0, b"k", value))


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry, self.broker, self.clock = Registry(), FakeBroker(), FixedClock(NOW)
        self.restart()

    def restart(self) -> None:
        """A new process on the same disk and topic."""
        self.events, self.slot, self.health = Events(), ModelSlot(), Health("model")
        self.follower = ModelFollower(
            events=self.events,
            store=BundleStore(self.folder, verify, self.clock),
            registry=self.registry,
            load=load,
            slot=self.slot,
            producer=FakeProducer(self.broker),
            health=self.health,
            clock=self.clock,
            model_name="FraudDetector",
            replica="stream-0",
            retry_s=1.0,
        )
        self.follower.start_from_disk()

    def step(self) -> None:
        self.follower.step(0.0, STOP)

    def attempts_within(self, seconds: int) -> int:
        """Steps once a second; how many downloads were tried."""
        before = len(self.registry.downloads)
        for _ in range(seconds):
            self.clock.set(self.clock.now() + timedelta(seconds=1))
            self.step()
        return len(self.registry.downloads) - before

    def serving(self, alias: Alias = "champion") -> str | None:
        model = getattr(self.slot.pair, alias)
        return model.version if model else None

    def told(self) -> list[ModelLoaded | ModelLoadRejected]:
        return [ModelEventDecoder().decode(record.value) for record in self.broker.records("model-events")]  # type: ignore[misc]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "models")


def test_a_promotion_is_fetched_loaded_linked_and_told(world: World) -> None:
    assert not world.health.ready
    world.events.promote("1", 1)
    world.step()

    assert world.serving() == "1"
    assert world.health.ready
    assert (world.folder / "current").readlink() == Path("1")
    assert (world.folder / "current" / "model").read_text() == "good"
    assert sorted(path.name for path in world.folder.iterdir()) == ["1", "current"]
    [told] = world.told()
    assert isinstance(told, ModelLoaded)
    assert (told.model_version, told.alias, told.replica, told.sequence, told.loaded_at) == (
        "1",
        "champion",
        "stream-0",
        1,
        NOW,
    )
    [record] = world.broker.records("model-events")
    assert record.key == b"FraudDetector:loaded:champion:stream-0"


def test_the_newest_sequence_wins_and_stale_ones_are_ignored(world: World) -> None:
    world.events.promote("2", 5)
    world.events.promote("1", 4)
    world.step()
    world.events.promote("1", 3)
    world.step()
    assert world.serving() == "2"
    assert world.registry.downloads == ["2"]


def test_nothing_is_loaded_before_the_topic_is_read_to_its_end(world: World) -> None:
    world.events.caught_up = False
    world.events.promote("1", 1)
    world.step()
    assert world.serving() is None
    world.events.promote("2", 2)
    world.events.caught_up = True
    world.step()
    assert world.registry.downloads == ["2"]


def test_a_rollback_is_a_promotion_of_an_older_version_and_needs_no_download(world: World) -> None:
    for sequence, version in enumerate(["1", "2", "1"]):
        world.events.promote(version, sequence)
        world.step()
    assert world.serving() == "1"
    assert world.registry.downloads == ["1", "2"]
    assert (world.folder / "current").readlink() == Path("1")


@pytest.mark.parametrize("fault", ["golden set", "digest", "name"])
def test_a_refused_bundle_leaves_the_old_model_in_service_and_says_so(world: World, fault: str) -> None:
    world.events.promote("1", 1)
    world.step()
    if fault == "digest":
        world.registry.digests["3"] = "damaged"
    world.events.promote("../3" if fault == "name" else "3", 2)
    world.step()
    world.step()

    assert world.serving() == "1"
    assert world.health.ready
    assert (world.folder / "current").readlink() == Path("1")
    refused = world.told()[1:]
    assert len(refused) == 1
    assert isinstance(refused[0], ModelLoadRejected)
    assert (refused[0].sequence, refused[0].serving_version) == (2, "1")
    assert refused[0].reason
    assert not [path for path in world.folder.iterdir() if path.name.startswith(".")]
    world.events.promote("2", 3)
    world.step()
    assert world.serving() == "2"


def test_the_first_model_refused_is_not_ready_and_says_why(world: World) -> None:
    world.events.promote("3", 1)
    world.step()
    assert "version 3 was refused" in world.health.unmet()["model"]


def test_a_first_model_whose_artifacts_come_a_moment_later_serves(world: World) -> None:
    world.events.promote("4", 1)
    world.step()
    assert "version 4 was refused, and is tried again: missing_file" in world.health.unmet()["model"]
    world.attempts_within(120)
    world.registry.models["4"] = "good"
    world.attempts_within(int(LONGEST_PAUSE_S) + 1)
    assert world.serving() == "4"
    assert world.health.ready
    refused, loaded = world.told()
    assert (type(refused), type(loaded)) == (ModelLoadRejected, ModelLoaded)
    assert (refused.sequence, loaded.sequence) == (1, 1)


def test_while_nothing_serves_a_refused_bundle_is_tried_at_least_every_half_minute(world: World) -> None:
    world.events.promote("4", 1)
    world.step()
    world.attempts_within(120)
    for _ in range(20):
        assert world.attempts_within(int(LONGEST_PAUSE_S) + 1) >= 1


def test_while_an_older_model_serves_a_refused_bundle_is_tried_ever_more_rarely(world: World) -> None:
    world.events.promote("1", 1)
    world.step()
    world.events.promote("4", 2)
    world.step()
    assert world.attempts_within(60) >= 4
    world.attempts_within(3600)
    assert 6 <= world.attempts_within(3600) <= 13
    assert len(world.told()) == 2
    assert world.health.ready
    world.registry.models["4"] = "good"
    world.attempts_within(int(LONGEST_PAUSE_SERVING_S) + 1)
    assert world.serving() == "4"


@pytest.mark.parametrize("fault", ["diverges", "unreadable"])
def test_a_bundle_that_could_not_be_loaded_is_tried_again_too(world: World, fault: str) -> None:
    world.registry.models["4"] = fault
    world.events.promote("4", 1)
    world.step()
    assert world.serving() is None
    (world.folder / "4" / "model").write_text("good")
    world.attempts_within(3)
    assert world.serving() == "4"


def test_a_refusal_for_another_reason_is_told_too(world: World) -> None:
    world.events.promote("4", 1)
    world.step()
    world.registry.models["4"] = "diverges"
    world.attempts_within(3)
    assert [told.reason for told in world.told() if isinstance(told, ModelLoadRejected)] == [
        "missing_file: manifest.json",
        "the golden set differs",
    ]


def test_a_newer_promotion_ends_the_wait_for_a_refused_one(world: World) -> None:
    world.events.promote("4", 1)
    world.step()
    world.attempts_within(600)
    world.events.promote("1", 2)
    world.step()
    assert world.serving() == "1"
    world.registry.models["4"] = "good"
    assert world.attempts_within(3600) == 0


def test_a_refused_challenger_does_not_hold_the_champion_up(world: World) -> None:
    world.events.promote("4", 1, "challenger")
    world.events.promote("1", 2)
    world.step()
    assert (world.serving(), world.serving("challenger")) == ("1", None)
    world.registry.models["4"] = "good"
    world.attempts_within(int(LONGEST_PAUSE_SERVING_S) + 1)
    assert (world.serving(), world.serving("challenger")) == ("1", "4")


def test_a_local_bundle_that_the_disk_does_not_give_is_left_for_the_registry(world: World) -> None:
    world.events.promote("1", 1)
    world.step()
    (world.folder / "1" / "model").write_text("unreadable")
    world.restart()
    assert world.serving() is None


def test_a_registry_that_is_away_is_tried_again_with_growing_pauses(world: World) -> None:
    world.registry.unavailable = True
    world.events.promote("1", 1)
    world.step()
    world.step()
    assert world.registry.downloads == ["1"]
    assert "MLflow does not answer" in world.health.unmet()["model"]
    world.clock.set(NOW + timedelta(seconds=1))
    world.step()
    world.clock.set(NOW + timedelta(seconds=2))
    world.step()
    assert world.registry.downloads == ["1", "1"]
    world.registry.unavailable = False
    world.clock.set(NOW + timedelta(seconds=3))
    world.step()
    assert world.serving() == "1"


def test_a_newer_promotion_cuts_the_pause_short(world: World) -> None:
    world.registry.unavailable = True
    world.events.promote("1", 1)
    world.step()
    world.registry.unavailable = False
    world.events.promote("2", 2)
    world.step()
    assert world.serving() == "2"
    assert world.registry.downloads == ["1", "2"]


def test_a_restart_serves_from_disk_while_registry_and_kafka_are_away(world: World) -> None:
    world.events.promote("1", 1)
    world.events.promote("2", 2, "challenger")
    world.step()
    world.registry.unavailable = True
    world.restart()
    world.events.unavailable = True
    world.follower.step(0.0, _set())
    assert (world.serving(), world.serving("challenger")) == ("1", "2")
    assert world.health.ready


def test_a_restart_answers_the_promotion_that_it_already_serves_without_a_download(world: World) -> None:
    world.events.promote("1", 7)
    world.step()
    world.restart()
    world.events.promote("1", 7)
    world.step()
    assert world.registry.downloads == ["1"]
    assert [event.sequence for event in world.told()] == [7, 7]


def test_a_damaged_bundle_on_disk_is_not_served_but_fetched_anew(world: World) -> None:
    world.events.promote("1", 1)
    world.step()
    (world.folder / "1" / "digest").write_text("flipped")
    world.restart()
    assert world.serving() is None
    world.events.promote("1", 1)
    world.step()
    assert world.serving() == "1"
    assert (world.folder / "1" / "digest").read_text() == "sound"
    assert sorted(path.name for path in world.folder.iterdir()) == ["1", "current"]


def test_a_dangling_link_is_no_model(world: World) -> None:
    world.folder.mkdir(parents=True)
    (world.folder / "current").symlink_to("9")
    world.restart()
    assert world.serving() is None


def test_a_withdrawn_challenger_goes_and_a_withdrawn_champion_stays(world: World) -> None:
    world.events.promote("1", 1)
    world.events.promote("2", 2, "challenger")
    world.step()
    assert world.serving("challenger") == "2"
    world.events.promote(None, 3, "challenger")
    world.events.promote(None, 4, "champion")
    world.step()
    assert (world.serving(), world.serving("challenger")) == ("1", None)
    assert not (world.folder / "challenger").is_symlink()
    assert (world.folder / "current").is_symlink()


def test_events_of_others_and_nonsense_are_passed_over(world: World) -> None:
    world.events.promote("1", 1, model="Other")
    world.events.raw(b"{")
    world.events.raw(None)
    world.events.raw(b'{"type": "ModelPromoted"}')
    world.events.promote("2", 1)
    world.step()
    assert world.serving() == "2"


def test_kafka_away_does_not_undo_a_swap_and_the_answer_is_told_later(world: World) -> None:
    world.events.promote("1", 1)
    world.broker.unavailable = True
    world.step()
    assert (world.serving(), world.registry.downloads) == ("1", ["1"])
    world.broker.unavailable = False
    world.clock.set(NOW + timedelta(seconds=1))
    world.step()
    assert [event.sequence for event in world.told()] == [1]
    assert world.registry.downloads == ["1"]


def test_two_processes_may_fetch_one_version_into_one_folder(tmp_path: Path) -> None:
    """The other one puts its copy into place while ours is still being verified."""
    folder = tmp_path / "models"
    other = BundleStore(folder, verify, FixedClock(NOW))

    class Raced(Registry):
        def download(self, version: str, dest: Path) -> Path:
            bundle = super().download(version, dest)
            (folder / version).mkdir()
            for name in ("model", "digest"):
                (folder / version / name).write_text((bundle / name).read_text())
            return bundle

    verify(other.fetch("1", Raced()))
    assert [path.name for path in folder.iterdir()] == ["1"]


def test_what_a_killed_process_left_is_removed_and_what_another_downloads_is_not(tmp_path: Path) -> None:
    for name, age_s in ((".incoming-1-99", 7_200), (".damaged-1-99", 7_200), (".incoming-2-98", 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").write_text("half")
        os.utime(tmp_path / name, (NOW.timestamp() - age_s,) * 2)

    BundleStore(tmp_path, verify, FixedClock(NOW)).fetch("1", Registry())

    assert sorted(path.name for path in tmp_path.iterdir()) == [".incoming-2-98", "1"]


def _set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event
