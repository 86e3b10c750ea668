"""The watcher between a real MLflow and a real Kafka."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from centinela.codec import ModelEventDecoder
from centinela.consuming.table_reader import TableReader, open_table
from centinela.events import ModelPromoted
from centinela.kafka.connect import topic_admin
from centinela.kafka.topic_admin import TopicSpec
from centinela.model.registry import CHALLENGER, CHAMPION, Registry
from centinela_local.processes.ports import free_port
from centinela_registry_watcher.bootstrap import run
from centinela_registry_watcher.settings import WatcherSettings

Told = list[tuple[str, str | None, int]]


class World:
    """A model of its own on the shared MLflow, a topic of its own on the shared Kafka, and an independent reader of
    it."""

    def __init__(self, settings: WatcherSettings, topic: str) -> None:
        self.settings, self.topic, self.registry = settings, topic, Registry(settings)
        admin = topic_admin(settings)
        admin.create([TopicSpec(topic, 1, 1, {"cleanup.policy": "compact"})])
        admin.close()
        self._mlflow = httpx.Client(base_url=f"{settings.mlflow_tracking_uri}/api/2.0/mlflow", timeout=30)
        self._post("registered-models/create", name=settings.model_name)
        experiment = self._post("experiments/create", name=f"watcher-{settings.model_name}")["experiment_id"]
        for _ in range(3):
            run = self._post("runs/create", experiment_id=experiment)["run"]["info"]
            self._post(
                "model-versions/create",
                name=settings.model_name,
                source=f"{run['artifact_uri']}/bundle",
                run_id=run["run_id"],
            )
        self._reader: TableReader = open_table(settings, [topic], client="confluent")
        self._told: Told = []

    def told(self) -> Told:
        """All promotions on the topic so far, in order."""
        for record in self._reader.read_to_end():
            event = ModelEventDecoder().decode(record.value)
            assert isinstance(event, ModelPromoted)
            self._told.append((event.alias, event.model_version, event.sequence))
        return self._told

    def eventually(self, expected: Told, timeout_s: float = 30.0) -> None:
        """Wait until exactly *expected* was told."""
        deadline = time.monotonic() + timeout_s
        while self.told() != expected and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        assert self.told() == expected

    @contextmanager
    def watcher(self, *, poll_s: float = 0.05, mlflow: str | None = None) -> Iterator[WatcherSettings]:
        """A watcher at work, on a port of its own; ended and joined afterwards."""
        update = {"watcher_poll_s": poll_s, "watcher_port": free_port()} | (
            {"mlflow_tracking_uri": mlflow} if mlflow else {}
        )
        settings = self.settings.model_copy(update=update)
        stop = threading.Event()
        thread = threading.Thread(target=run, args=(settings, stop), kwargs={"topic": self.topic})
        thread.start()
        try:
            yield settings
        finally:
            stop.set()
            thread.join(20)
            assert not thread.is_alive()

    def close(self) -> None:
        self._reader.close()
        self._mlflow.close()

    def _post(self, path: str, **body: object) -> dict[str, Any]:
        response = self._mlflow.post(path, json=body)
        response.raise_for_status()
        return dict(response.json())


@pytest.fixture
def world(
    make_settings: Callable[..., WatcherSettings], topic_names: Callable[[str], str], unique: str
) -> Iterator[World]:
    world = World(
        make_settings(WatcherSettings, mlflow=True, model_name=f"Watched-{unique}"), topic_names("model-events")
    )
    yield world
    world.close()


def test_promotions_are_announced_in_order_and_a_restart_repeats_nothing(world: World) -> None:
    with world.watcher() as settings:
        world.registry.promote("1")
        world.eventually([("champion", "1", 1)])
        world.registry.set_alias(CHALLENGER, "2")
        world.eventually([("champion", "1", 1), ("challenger", "2", 2)])
        world.registry.promote("2", "1")
        world.eventually([("champion", "1", 1), ("challenger", "2", 2), ("champion", "2", 3), ("challenger", None, 4)])
        _answers(settings, "/ready")

    before = list(world.told())
    with world.watcher() as settings:
        _answers(settings, "/ready")
        assert world.told() == before
        world.registry.rollback()
        world.eventually([*before, ("champion", "1", 5)])


def test_what_moved_in_mlflow_while_nobody_watched_is_announced_at_start(world: World) -> None:
    world.registry.set_alias(CHAMPION, "3")
    with world.watcher():
        world.eventually([("champion", "3", 1)])


def test_a_hint_by_http_makes_it_look_at_once(world: World) -> None:
    with world.watcher(poll_s=600) as settings:
        _answers(settings, "/ready")
        world.registry.promote("2")
        assert httpx.post(f"http://127.0.0.1:{settings.watcher_port}/hint", json={"any": "webhook"}).json() == {
            "status": "looking"
        }
        world.eventually([("champion", "2", 1)])


def test_without_mlflow_it_lives_and_is_not_ready_and_says_so(world: World) -> None:
    with world.watcher(mlflow="http://127.0.0.1:9") as settings:
        waiting = _until(
            settings, "/ready", lambda status, body: "does not answer" in body.get("waiting_for", {}).get("mlflow", "")
        )
        assert set(waiting["waiting_for"]) == {"mlflow"}
        assert httpx.get(f"http://127.0.0.1:{settings.watcher_port}/health").status_code == 200
    assert world.told() == []


def _answers(settings: WatcherSettings, path: str) -> None:
    _until(settings, path, lambda status, body: status == 200)


def _until(settings: WatcherSettings, path: str, holds: Callable[[int, dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while True:
        try:
            response = httpx.get(f"http://127.0.0.1:{settings.watcher_port}{path}")
            if holds(response.status_code, response.json()):
                return dict(response.json())
            last = response.text
        except httpx.TransportError as error:
            last = str(error)
        assert time.monotonic() < deadline, last
        threading.Event().wait(0.05)
