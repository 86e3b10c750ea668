"""The stack under a real supervisord, with small HTTP servers in place of MLflow and the services."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console

from centinela.errors import DependencyUnavailable
from centinela.settings import Settings
from centinela_local.errors import PortTaken, StartFailed
from centinela_local.processes.ports import free_port, is_taken
from centinela_local.processes.restarts import Start, StartFile
from centinela_local.processes.spec import Process
from centinela_local.settings import LocalSettings
from centinela_local.stack import Stack
from tests.support.waiting import eventually

SERVER = """
import http.server, json, sys
status, body = int(sys.argv[2]), sys.argv[3].encode()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
READY = (200, '{"ready": true}')
WITHOUT_MODEL = (503, '{"ready": false, "waiting_for": {"model": "no champion yet"}}')


def serving(name: str, answer: tuple[int, str] = READY, port: int | None = None) -> Process:
    port = port or free_port()
    return Process(
        name, (sys.executable, "-S", "-c", SERVER, str(port), str(answer[0]), answer[1]), port, f"{name}_port"
    )


def stack_of(
    folder: Path,
    broker: str,
    services: tuple[Process, ...],
    *,
    topics: Callable[[Settings], object] = lambda settings: None,
    model_exists: Callable[[Settings], bool] = lambda settings: False,
) -> Stack:
    settings = LocalSettings(kafka_bootstrap_servers=broker, local_dir=folder)
    return Stack(
        settings,
        Console(file=io.StringIO()),
        create_topics=topics,
        model_exists=model_exists,
        mlflow=serving("mlflow"),
        services=services,
    )


@pytest.fixture
def make_stack(tmp_path: Path, broker: str) -> Iterator[Callable[..., Stack]]:
    stacks: list[Stack] = []

    def make(
        *services: Process,
        topics: Callable[[Settings], object] = lambda settings: None,
        model_exists: Callable[[Settings], bool] = lambda settings: False,
    ) -> Stack:
        stacks.append(stack_of(tmp_path / "local", broker, services, topics=topics, model_exists=model_exists))
        return stacks[-1]

    yield make
    for stack in stacks:
        stack.down()


class Running(NamedTuple):
    """A stack that is up. ``ports_at_topics``: whether each service listened already when the topics were made."""

    stack: Stack
    ports_at_topics: list[bool]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, broker: str) -> Iterator[Running]:
    services, listened = (serving("ingest"), serving("gateway", WITHOUT_MODEL)), list[bool]()
    stack = stack_of(
        tmp_path_factory.mktemp("stack"),
        broker,
        services,
        topics=lambda _: listened.extend(is_taken(s.port) for s in services),
    )
    stack.up(30)
    yield Running(stack, listened)
    stack.down()


def pids(stack: Stack) -> dict[str, int]:
    return {name: state.pid for name, (_, state, _) in stack.states().items()}


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_up_starts_what_does_not_run_and_leaves_alone_what_runs(running: Running) -> None:
    before = pids(running.stack)
    assert set(before) == {"mlflow", "ingest", "gateway"}
    assert all(before.values())
    running.stack.up(30)
    assert pids(running.stack) == before


def test_topics_are_made_before_any_service_starts(running: Running) -> None:
    assert running.ports_at_topics[:2] == [False, False]


def test_what_dies_is_started_again(running: Running) -> None:
    first = pids(running.stack)["ingest"]
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: pids(running.stack)["ingest"] not in (0, first))


def test_what_dies_again_soon_pauses_before_its_next_start(running: Running) -> None:
    stack = running.stack
    log = stack.paths.log / "ingest.log"

    def ready() -> bool:
        return stack.states()["ingest"][2] is None

    for _ in range(2):
        assert eventually(ready)
        os.kill(pids(stack)["ingest"], signal.SIGKILL)
        assert eventually(lambda: not ready())
    assert eventually(lambda: "process.restart_delayed" in log.read_text())
    assert eventually(ready)


def test_a_process_in_its_pause_is_shown_as_such_until_a_person_starts_it(running: Running) -> None:
    stack = running.stack
    file = StartFile(stack.paths.run, "ingest")
    file.write(Start(time.monotonic() + 600, 600.0))
    assert stack.states()["ingest"][2] == "ended soon after its start, and waits before the next"
    stack.up(30)
    assert file.read() is None
    assert stack.states()["ingest"][2] is None


def test_topics_and_registry_are_asked_again_while_they_do_not_answer(
    make_stack: Callable[..., Stack],
) -> None:
    asked: list[str] = []

    def answer_at_the_third_time(what: str) -> Callable[[Settings], bool]:
        def ask(_: Settings) -> bool:
            asked.append(what)
            if asked.count(what) < 3:
                raise DependencyUnavailable(f"{what}: no answer")
            return False

        return ask

    stack = make_stack(
        serving("ingest"),
        topics=answer_at_the_third_time("topics"),
        model_exists=answer_at_the_third_time("registry"),
    )
    stack.up(60)
    assert asked == ["topics"] * 3 + ["registry"] * 3


def test_a_start_whose_topics_cannot_be_made_in_time_says_why(make_stack: Callable[..., Stack]) -> None:
    def unavailable(_: Settings) -> None:
        raise DependencyUnavailable("no leader")

    with pytest.raises(StartFailed, match=r"the stack was not ready within 1 s: no leader"):
        make_stack(serving("ingest"), topics=unavailable).up(1)


def test_a_stack_that_runs_with_other_settings_is_not_mixed(running: Running, broker: str) -> None:
    with pytest.raises(StartFailed, match="other settings"):
        stack_of(running.stack.paths.root, broker, (serving("ingest"),)).up(30)


def test_down_leaves_nothing_and_may_be_given_twice(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(serving("ingest"))
    stack.up(30)
    were = pids(stack)
    assert stack.down()
    assert all(gone(pid) for pid in were.values())
    assert not stack.running()
    assert not stack.down()


def test_a_start_that_is_not_ready_in_time_says_why_and_leaves_nothing(make_stack: Callable[..., Stack]) -> None:
    gateway = serving("gateway", WITHOUT_MODEL)
    with pytest.raises(StartFailed, match=r"gateway waits for model \(no champion yet\)"):
        make_stack(gateway, model_exists=lambda _: True).up(2.5)
    assert not is_taken(gateway.port)


def test_an_interrupted_start_leaves_nothing(make_stack: Callable[..., Stack]) -> None:
    def interrupted(settings: Settings) -> None:
        raise KeyboardInterrupt

    stack = make_stack(serving("ingest"), topics=interrupted)
    with pytest.raises(KeyboardInterrupt):
        stack.up(30)
    assert not stack.running()


def test_a_service_that_keeps_ending_fails_the_start_with_its_last_words(make_stack: Callable[..., Stack]) -> None:
    broken = Process(
        "drift",
        (sys.executable, "-S", "-c", "import time; time.sleep(1.1); raise SystemExit('no feature store')"),
        free_port(),
        "drift_port",
    )
    with pytest.raises(StartFailed, match=r"drift keeps ending at its start:(.|\n)*no feature store"):
        make_stack(broken).up(30)


def test_a_taken_port_is_named_with_the_variable_that_changes_it(make_stack: Callable[..., Stack], broker: str) -> None:
    taken = int(broker.rpartition(":")[2])
    with pytest.raises(PortTaken, match=rf"port {taken} \(ingest\) is taken; .* CENTINELA_INGEST_PORT"):
        make_stack(serving("ingest", port=taken)).up(30)


on_linux = pytest.mark.skipif(
    sys.platform != "linux",
    reason="the kernel tells a child of its parent's death, and hands over orphans, on Linux only",
)


@on_linux
def test_processes_end_with_a_killed_supervisor(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(serving("ingest"))
    stack.up(30)
    running = pids(stack)
    os.kill(int(stack.paths.supervisor_pid.read_text()), signal.SIGKILL)
    assert eventually(lambda: all(gone(pid) for pid in running.values()))
    stack.up(30)


STARTER = """
import subprocess, sys
from pathlib import Path
from centinela_local.processes.background import BackgroundProcess

grandchild = "import time; time.sleep(300)"
child = "import subprocess, sys, time; "
child += f"print(subprocess.Popen([sys.executable, '-S', '-c', {grandchild!r}]).pid, flush=True); time.sleep(300)"
log = Path(sys.argv[1])
command = [sys.executable, "-m", "centinela_local.processes.process_group", sys.executable, "-S", "-c", child]
family = BackgroundProcess("a family", command, log=log, answers=lambda: log.read_text().endswith("\\n"))
family.start()
print(family._process.pid, flush=True)
sys.stdin.read()
"""


@on_linux
def test_what_a_command_started_ends_with_whoever_started_the_command(tmp_path: Path) -> None:
    log = tmp_path / "family.log"
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(log)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        family, grandchild = int(starter.stdout.readline()), int(log.read_text())
        assert not gone(family)
        assert not gone(grandchild)
        starter.kill()

    assert eventually(lambda: gone(family) and gone(grandchild))


@on_linux
def test_a_command_that_ends_ends_what_it_started_and_its_code_is_told() -> None:
    child = (
        "import subprocess, sys; print(subprocess.Popen([sys.executable, '-S', '-c', 'import time;"
        " time.sleep(300)']).pid); sys.exit(7)"
    )
    done = subprocess.run(
        [sys.executable, "-m", "centinela_local.processes.process_group", sys.executable, "-S", "-c", child],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7
    assert eventually(lambda: gone(int(done.stdout)))
