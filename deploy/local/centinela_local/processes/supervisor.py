"""supervisord: started as a daemon, spoken to over its socket."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import Faults, SupervisorTransport

from centinela_local.errors import StartFailed
from centinela_local.processes.restarts import StartFile
from centinela_local.processes.startup import StartupWait, activity


@dataclass(frozen=True)
class ProcessState:
    """What a process is doing.

    Attributes:
        state: RUNNING, STARTING, BACKOFF (it ended, and waits before its next start), STOPPED, EXITED or FATAL.
    """

    state: str
    pid: int
    started_at: int
    detail: str


class Supervisor:
    """The supervisord of one local stack.

    Args:
        config: Its configuration file.
        socket: The socket that the configuration names.
    """

    def __init__(self, config: Path, socket: Path) -> None:
        self._config = config
        self._socket = socket

    def running(self) -> bool:
        """Whether it answers."""
        try:
            self._call("getState")
        except OSError:
            return False
        return True

    def launch(self, environment: Mapping[str, str]) -> None:
        """Start the daemon with *environment*; no process of its list starts by itself.

        Raises:
            StartFailed: It ended at once, or makes no progress.
        """
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._config)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=dict(environment), check=False
        )
        if done.returncode != 0:
            raise StartFailed(f"supervisord did not start:\n{(done.stdout + done.stderr).strip()[-2000:]}")
        wait = StartupWait(self._daemon_activity)
        while not self.running():
            if (problem := wait.problem()) is not None:
                raise StartFailed(f"supervisord {problem}: no answer on {self._socket}")
            time.sleep(0.05)

    def start(self, name: str) -> None:
        """Start a process of the list, without waiting; one that runs is left alone."""
        self._start_file(name).forget()
        try:
            self._call("startProcess", self._full_name(name), False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.ALREADY_STARTED:
                raise StartFailed(f"{name}: {fault.faultString}") from fault

    def stop(self, name: str) -> None:
        """Stop a process and wait for its end; one that does not run is left alone."""
        try:
            self._call("stopProcess", self._full_name(name), True)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.NOT_RUNNING:
                raise

    def states(self) -> dict[str, ProcessState]:
        """State by process name.

        Raises:
            OSError: supervisord does not answer.
        """
        return {info["name"]: self._state(info) for info in self._call("getAllProcessInfo")}

    def _state(self, info: dict[str, Any]) -> ProcessState:
        state: str = info["statename"]
        if state in ("RUNNING", "STARTING") and self._start_file(info["name"]).pending_s() > 0:
            state = "BACKOFF"
        return ProcessState(state, info["pid"], info["start"], info["spawnerr"] or info["description"])

    def _start_file(self, name: str) -> StartFile:
        return StartFile(self._config.parent, name)

    def shutdown(self, timeout_s: float = 60.0) -> None:
        """Stop every process and the daemon, and wait until they are gone; what stays past *timeout_s* is killed."""
        try:
            daemon: int = self._call("getPID")
            children = [state.pid for state in self.states().values() if state.pid]
            self._call("shutdown")
        except OSError:
            return
        if _within(timeout_s, lambda: self._ended(daemon)):
            return
        for pid in (daemon, *children):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _daemon_activity(self) -> tuple[float, int]:
        pid_file = self._config.with_name("supervisord.pid")
        try:
            pids = [int(pid_file.read_text())]
        except (OSError, ValueError):
            pids = []
        return activity(pids, [pid_file])

    def _ended(self, daemon: int) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException, xmlrpc.client.Error):
            self._call("getState")  # a request wakes its loop, which else looks once a second
        return not _alive(daemon)

    def _full_name(self, name: str) -> str:
        return next(
            (f"{info['group']}:{name}" for info in self._call("getAllProcessInfo") if info["name"] == name), name
        )

    def _call(self, method: str, *arguments: object) -> Any:
        proxy = xmlrpc.client.ServerProxy(
            "http://localhost", transport=SupervisorTransport(serverurl=f"unix://{self._socket}")
        )
        with proxy:
            return getattr(proxy.supervisor, method)(*arguments)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _within(timeout_s: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
