"""A training killed (SIGKILL) at every point where it matters, and the trainer itself before its commit: one run, one
version, one answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from centinela.model.registry import CHAMPION
from centinela_trainer.retraining.child_runner import as_environment
from centinela_trainer.settings import TrainerSettings
from tests.support.trainer_world import World, world_of

POINTS = "Tracking.log Registry.set_alias Tracking.complete"
"""Where a child dies, one after the other: before anything is logged, after the version is registered, after it is
promoted."""
DYING_CHILD = """
import os, signal, sys
from centinela.model.registry import Registry
from centinela_trainer.__main__ import main
from centinela_trainer.mlflow_tracking import Tracking

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

kind, method = sys.argv[1].split(".")
setattr({"Tracking": Tracking, "Registry": Registry}[kind], method, die)
sys.exit(main(["train", "--request", sys.argv[2], "--answer", sys.argv[3]]))
"""
DYING_TRAINER = """
import os, signal, subprocess, sys, threading
from centinela.groups import ConsumerGroup
from centinela.consuming.committer import TransactionalCommitter
from centinela.liveness.health import Health
from centinela.telemetry.logging import configure_logging
from centinela_trainer.retraining import bootstrap
from centinela_trainer.settings import TrainerSettings

configure_logging("trainer")
requests, events, name, child, points = sys.argv[1:]
points, start_well = points.split(), bootstrap.start_child(TrainerSettings())

def start(request, answer, output):
    if not points:
        return start_well(request, answer, output)
    point = points.pop(0)
    command = [sys.executable, "-c", child, point, str(request), str(answer)]
    process = subprocess.Popen(command, stdout=output.open("wb"))
    print(f"{point}: {process.wait()}", flush=True)
    return process

def commit(self, records, offsets):
    if records:
        print("commit", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

bootstrap.start_child = lambda settings: start
TransactionalCommitter.commit = commit
settings, health, stop = TrainerSettings(), Health(), threading.Event()
group = ConsumerGroup(name)
bootstrap.trainer_loop(
    settings, health, stop, requests=requests, events=events, group=group, transactional_id=name
).run()
"""


@pytest.fixture
def world(make_settings: Callable[..., TrainerSettings], unique: str, tmp_path: Path) -> World:
    return world_of(make_settings, unique, tmp_path)


def test_a_request_trains_once_whatever_is_killed_and_whenever(world: World) -> None:
    world.ask(world.request("first", 16))
    command = [sys.executable, "-c", DYING_TRAINER, world.requests, world.events, world.name, DYING_CHILD, POINTS]
    done = subprocess.run(
        command,
        env={**os.environ, **as_environment(world.settings)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert done.stdout.split("\n") == [*(f"{point}: -9" for point in POINTS.split()), "commit", ""]

    with world.trainer():
        [answer] = world.answers(1, timeout_s=300)

    assert (answer.outcome, answer.model_version) == ("promoted", "1")
    assert world.registry.aliases() == {CHAMPION: "1"}
    assert [version.version for version in world.registry.versions()] == ["1"]
    assert {run["info"]["run_id"]: run["info"]["status"] for run in world.runs()}.pop(answer.run_id) == "FINISHED"
    assert sorted(run["info"]["status"] for run in world.runs()) == ["FAILED", "FINISHED"]
