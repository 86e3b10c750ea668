"""The stack under a real supervisord, with small HTTP servers in place of MLflow and the services."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from centinela.settings import Settings
from centinela_local.errors import PortTaken, StartFailed
from centinela_local.ports import free_port, is_taken
from centinela_local.processes import Process
from centinela_local.settings import LocalSettings
from centinela_local.stack import Stack

SERVER = """
import http.server, json, sys
status, body = int(sys.argv[2]), sys.argv[3].encode()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(status); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
READY = (200, '{"ready": true}')
WITHOUT_MODEL = (503, '{"ready": false, "waiting_for": {"model": "no champion yet"}}')
WITHOUT_DISK = (503, '{"ready": false, "waiting_for": {"disk": "full"}}')


def serving(name: str, answer: tuple[int, str] = READY, port: int | None = None) -> Process:
    port = port or free_port()
    return Process(name, (sys.executable, "-S", "-c", SERVER, str(port), str(answer[0]), answer[1]), port, f"{name}_port")


@pytest.fixture
def make_stack(tmp_path: Path, broker: str) -> Iterator[Callable[..., Stack]]:
    stacks: list[Stack] = []

    def make(*services: Process, model: bool = False, topics: Callable[[Settings], None] = lambda settings: None) -> Stack:
        settings = LocalSettings(kafka_bootstrap_servers=broker, local_dir=tmp_path / "local")
        stack = Stack(settings, Console(file=io.StringIO()), create_topics=topics, model_exists=lambda settings: model,
                      mlflow=serving("mlflow"), services=services)
        stacks.append(stack)
        return stack

    yield make
    for stack in stacks:
        stack.down()


def pids(stack: Stack) -> dict[str, int]:
    return {name: state.pid for name, (_, state, _) in stack.states().items()}


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_up_waits_until_all_are_ready_and_down_leaves_nothing(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(serving("ingest"), serving("gateway", WITHOUT_MODEL))
    stack.up(30)
    running = pids(stack)
    assert set(running) == {"mlflow", "ingest", "gateway"}
    assert all(running.values())

    stack.up(30)
    assert pids(stack) == running, "a second up leaves alone what runs"

    assert stack.down()
    assert all(gone(pid) for pid in running.values())
    assert not stack.running()
    assert not stack.down()


def test_topics_are_made_before_any_service_starts(make_stack: Callable[..., Stack]) -> None:
    ingest = serving("ingest")
    seen: list[tuple[str, bool]] = []
    stack = make_stack(ingest, topics=lambda settings: seen.append((settings.kafka_bootstrap_servers, is_taken(ingest.port))))
    stack.up(30)
    assert seen == [(stack.bootstrap_servers, False)]


def test_what_dies_is_started_again(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(serving("ingest"))
    stack.up(30)
    first = pids(stack)["ingest"]
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: pids(stack)["ingest"] not in (0, first))


@pytest.mark.parametrize(
    ("answer", "model", "reason"),
    [(WITHOUT_DISK, False, "gateway waits for disk"), (WITHOUT_MODEL, True, "gateway waits for model")],
)
def test_a_start_that_is_not_ready_in_time_says_why_and_leaves_nothing(
    make_stack: Callable[..., Stack], answer: tuple[int, str], model: bool, reason: str
) -> None:
    gateway = serving("gateway", answer)
    stack = make_stack(gateway, model=model)
    with pytest.raises(StartFailed, match=reason):
        stack.up(2.5)
    assert not stack.running()
    assert not is_taken(gateway.port)


def test_an_interrupted_start_leaves_nothing(make_stack: Callable[..., Stack]) -> None:
    def interrupted(settings: Settings) -> None:
        raise KeyboardInterrupt

    stack = make_stack(serving("ingest"), topics=interrupted)
    with pytest.raises(KeyboardInterrupt):
        stack.up(30)
    assert not stack.running()


def test_a_service_that_keeps_ending_fails_the_start_with_its_last_words(make_stack: Callable[..., Stack]) -> None:
    broken = Process("drift", (sys.executable, "-S", "-c", "import time; time.sleep(1.1); raise SystemExit('no feature store')"), free_port(), "drift_port")
    with pytest.raises(StartFailed, match=r"drift keeps ending at its start:(.|\n)*no feature store"):
        make_stack(broken).up(30)


def test_a_taken_port_is_named_with_the_variable_that_changes_it(make_stack: Callable[..., Stack], broker: str) -> None:
    taken = int(broker.rpartition(":")[2])
    with pytest.raises(PortTaken, match=rf"port {taken} \(ingest\) is taken; .* CENTINELA_INGEST_PORT"):
        make_stack(serving("ingest", port=taken)).up(30)


def test_a_stack_that_runs_with_other_settings_is_not_mixed(make_stack: Callable[..., Stack]) -> None:
    make_stack(serving("ingest")).up(30)
    with pytest.raises(StartFailed, match="other settings"):
        make_stack(serving("ingest")).up(30)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a child of its parent's death on Linux only")
def test_processes_end_with_a_killed_supervisor(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(serving("ingest"))
    stack.up(30)
    running = pids(stack)
    os.kill(int(stack.paths.supervisor_pid.read_text()), signal.SIGKILL)
    assert eventually(lambda: all(gone(pid) for pid in running.values()))
    stack.up(30)
