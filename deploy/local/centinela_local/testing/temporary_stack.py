"""A whole stack on its own ports and in its own folder, for tests: driven by a user's commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from centinela_local.errors import StartFailed
from centinela_local.paths import CHECKOUT, Paths
from centinela_local.processes.ports import LOOPBACK, is_taken, steady_ports
from centinela_local.processes.startup import LIMIT_S, StartupWait, activity
from centinela_local.processes.supervisor import Supervisor
from centinela_local.readiness.checks import ask
from centinela_local.settings import LocalSettings

_STARTS_AND_STOPS = ("up", "demo", "down", "status")
_PORT_OF = {"stream": "predictor_port", "registry-watcher": "watcher_port"}


class TemporaryStack:
    """A stack whose files are under *folder*, which the caller removes.

    Args:
        demo: Whether ``centinela demo`` starts it, which keeps its own data under the folder, instead of ``centinela
            up``.
    """

    def __init__(self, folder: Path, *, demo: bool = False) -> None:
        self._ports = _free_ports()
        self._commands: list[subprocess.Popen[str]] = []
        self.results = folder / "demo"
        self.paths = Paths.of(folder / "demo" / "stack" if demo else folder)
        self.data_dir = self.paths.root / "data"
        self.supervisor = Supervisor(self.paths.supervisor_config, self.paths.socket())
        everyday = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CENTINELA_", "KAFKA_", "MLFLOW_")) or name == "CENTINELA_CACHE"
        }
        ports = {f"CENTINELA_{name.upper()}": str(port) for name, port in self._ports.items()}
        self._starting = everyday | ports | {"CENTINELA_LOCAL_DIR": str(folder)}
        self._outside = self._starting | {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "MLFLOW_TRACKING_URI": self.url("mlflow"),
            "CENTINELA_DATA_DIR": str(self.data_dir),
        }

    @property
    def bootstrap_servers(self) -> str:
        return f"{LOOPBACK}:{self._ports['kafka_port']}"

    def url(self, process: str) -> str:
        """Address of *process*, by its name in ``centinela status``."""
        return f"http://{LOOPBACK}:{self._ports[_PORT_OF.get(process, f'{process}_port')]}"

    def begin(self, *command: str) -> subprocess.Popen[str]:
        """Start ``centinela`` with *command*, until ``down`` at the latest; all it prints goes to one pipe."""
        environment = self._starting if command[0] in _STARTS_AND_STOPS else self._outside
        self._commands = [process for process in self._commands if process.poll() is None]
        self._commands.append(
            subprocess.Popen(
                [sys.executable, "-m", "centinela", *command],
                env=environment,
                cwd=CHECKOUT,
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
        return self._commands[-1]

    def run(self, *command: str, timeout_s: float = LIMIT_S + 60) -> str:
        """Run ``centinela`` with *command* to its end and give what it printed.

        Raises:
            StartFailed: It ended with another code than 0; the message has what it printed.
        """
        process = self.begin(*command)
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except BaseException:
            _end(process)
            raise
        if process.returncode != 0:
            raise StartFailed(f"centinela {' '.join(command)} ended with code {process.returncode}:\n{output}")
        return output

    def kill(self, process: str) -> None:
        """Kill *process* at once (SIGKILL) and wait until the supervisor has started it again.

        Raises:
            StartFailed: It did not.
        """
        killed = self.supervisor.states()[process].pid
        os.kill(killed, signal.SIGKILL)
        self._wait(
            lambda: [f"{process} was not started again"] if self.supervisor.states()[process].pid in (0, killed) else []
        )

    def log(self, process: str) -> str:
        """What *process* has logged."""
        return (self.paths.log / f"{process}.log").read_text(errors="replace")

    def await_ready(self, *processes: str) -> None:
        """Wait until ``/ready`` of each answers 200.

        Raises:
            StartFailed: The stack makes no progress, or takes too long.
        """

        def unready() -> list[str]:
            answers = {process: ask(f"{self.url(process)}/ready") for process in processes}
            return [
                f"{process}: {answer}" for process, answer in answers.items() if answer is None or answer.status != 200
            ]

        self._wait(unready)

    def down(self) -> list[str]:
        """Stop everything by ``centinela down``; what still runs or listens after that, in words."""
        for process in self._commands:
            _end(process)
        groups = (
            {name: state.pid for name, state in self.supervisor.states().items()} if self.supervisor.running() else {}
        )
        groups["supervisord"] = int(self.paths.supervisor_pid.read_text()) if groups else 0
        self.run("down")
        alive = [f"{name} ({pid})" for name, pid in groups.items() if pid and _group_lives(pid)]
        return alive + [f"port {port} ({name})" for name, port in self._ports.items() if is_taken(port)]

    def _wait(self, unmet: Callable[[], list[str]]) -> None:
        """Wait until nothing is *unmet* any more."""
        wait = StartupWait(self._activity)
        while remaining := unmet():
            if (problem := wait.problem()) is not None:
                raise StartFailed(f"the stack {problem}: {'; '.join(remaining)}")
            time.sleep(0.1)

    def _activity(self) -> tuple[float, int]:
        pids = [state.pid for state in self.supervisor.states().values() if state.pid]
        return activity(pids, self.paths.log.glob("*.log"))


def _free_ports() -> dict[str, int]:
    names = [name for name in LocalSettings.model_fields if name.endswith("_port")]
    return dict(zip(names, steady_ports(len(names)), strict=True))


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        process.communicate()


def _group_lives(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def within(timeout_s: float, condition: Callable[[], bool]) -> bool:
    """Whether *condition* became true within *timeout_s*."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
