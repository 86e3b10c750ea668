"""Starts, watches and stops the whole local stack."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from centinela.errors import DependencyUnavailable
from centinela.settings import Settings
from centinela_local.broker import embedded as broker
from centinela_local.broker.choice import BrokerKind, DockerBroker, choose_broker, docker_answers
from centinela_local.broker.jars import can_run_broker
from centinela_local.errors import PortTaken, StartFailed
from centinela_local.paths import Paths
from centinela_local.process_list import kafka_process, mlflow_process, service_processes, shared_environment
from centinela_local.processes.interrupts import uninterrupted
from centinela_local.processes.ports import LOOPBACK, is_taken
from centinela_local.processes.spec import Process
from centinela_local.processes.startup import StartupWait, activity
from centinela_local.processes.supervisor import ProcessState, Supervisor
from centinela_local.processes.supervisor_config import INFRASTRUCTURE, SERVICES, render_config, render_listing
from centinela_local.readiness.checks import ask, waits_for
from centinela_local.readiness.display import ReadinessDisplay
from centinela_local.settings import LocalSettings

_RESTARTS_TOLERATED = 2
T = TypeVar("T")


class Stack:
    """The stack of one ``.local`` folder.

    Args:
        create_topics: Makes the topics. Called again while it raises ``DependencyUnavailable``.
        model_exists: Whether the registry has a champion to wait for. Called again like ``create_topics``.
        mlflow: The registry's process; MLflow's by default.
        services: What is started once the topics are there; the seven service processes by default.
        environment: Further settings of every process.
    """

    def __init__(
        self,
        settings: LocalSettings,
        console: Console,
        *,
        create_topics: Callable[[Settings], object],
        model_exists: Callable[[Settings], bool],
        mlflow: Process | None = None,
        services: Sequence[Process] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._console = console
        self._create_topics = create_topics
        self._model_exists = model_exists
        self._environment = environment or {}
        self.paths = Paths.of(settings.local_dir)
        self._supervisor = Supervisor(self.paths.supervisor_config, self.paths.socket())
        self._services = service_processes(settings) if services is None else list(services)
        self._mlflow = mlflow or mlflow_process(settings, self.paths)

    @property
    def external_kafka(self) -> bool:
        """Whether the brokers are not the stack's own."""
        return self._settings.external_kafka

    @property
    def bootstrap_servers(self) -> str:
        """The brokers that the stack uses."""
        if self._settings.external_kafka:
            return self._settings.kafka_bootstrap_servers
        return f"{LOOPBACK}:{self._settings.kafka_port}"

    @property
    def environment(self) -> dict[str, str]:
        """The settings that every process of the stack gets."""
        return {**shared_environment(self._settings, self.paths, self.bootstrap_servers), **self._environment}

    @property
    def connection(self) -> Settings:
        """The settings with which a command outside the stack reaches it."""
        environment = self.environment
        return self._settings.model_copy(
            update={
                "kafka_bootstrap_servers": self.bootstrap_servers,
                "mlflow_tracking_uri": environment["CENTINELA_MLFLOW_TRACKING_URI"],
                "data_dir": Path(environment["CENTINELA_DATA_DIR"]),
            }
        )

    def running(self) -> bool:
        """Whether the supervisor runs."""
        return self._supervisor.running()

    def up(self, limit_s: float) -> None:
        """Start what does not run yet and wait until all of it is ready. A failed or interrupted start leaves nothing
        running.

        Args:
            limit_s: Longest wait; a start that makes no progress fails earlier.

        Raises:
            ToolMissing: No broker can be run.
            PortTaken: Something else listens on one of the ports.
            StartFailed: A process makes no progress, is not ready within *limit_s*, or keeps ending.
        """
        with self._locked():
            was_running = self._supervisor.running()
            try:
                self._up(limit_s, was_running)
            except BaseException:
                if not was_running and (self._supervisor.running() or self._docker_runs.exists()):
                    self._console.print("The start failed or was interrupted; stopping what came up.", style="yellow")
                    with uninterrupted():
                        self._down()
                raise

    def down(self) -> bool:
        """Stop everything; False where nothing ran. Data under ``.local`` stay."""
        with self._locked():
            return self._down()

    def wipe(self) -> None:
        """Remove Kafka's, MLflow's and the services' data of a stopped stack."""
        with self._locked():
            if self._docker_keeps.exists() and docker_answers():
                self._docker().stop(wipe=True)
                self._docker_keeps.unlink()
            for folder in (self.paths.kafka, self.paths.mlflow, self.paths.root / "data", self.paths.log):
                shutil.rmtree(folder, ignore_errors=True)

    def states(self) -> dict[str, tuple[Process, ProcessState, str | None]]:
        """Each supervised process with its state and what it waits for; empty where nothing runs."""
        try:
            states = self._supervisor.states()
        except OSError:
            return {}
        kafka = kafka_process(self._settings, [])
        processes = {process.name: process for process in (kafka, self._mlflow, *self._services)}
        return {
            name: (processes[name], state, self._waiting(processes[name], state, model_expected=True))
            for name, state in states.items()
            if name in processes
        }

    def _up(self, limit_s: float, was_running: bool) -> None:
        kind = choose_broker(
            external=self._settings.external_kafka,
            can_embed=can_run_broker(),
            docker_answers=not self._settings.external_kafka and not can_run_broker() and docker_answers(),
        )
        for folder in (self.paths.run, self.paths.log, self.paths.mlflow):
            folder.mkdir(parents=True, exist_ok=True)
        infrastructure = self._infrastructure(kind)
        everything = [*infrastructure, *self._services]
        config = render_config(
            {INFRASTRUCTURE: infrastructure, SERVICES: self._services}, self.paths.socket(), self.paths.processes
        )
        listing = render_listing(everything, self.environment)
        if was_running:
            if (self.paths.supervisor_config.read_text(), self.paths.processes.read_text()) != (config, listing):
                raise StartFailed("the stack runs with other settings: `centinela down` first")
        else:
            for process in everything:
                if is_taken(process.port):
                    raise PortTaken(
                        f"port {process.port} ({process.name}) is taken; free it or set {process.port_variable} to"
                        " another one"
                    )
            self.paths.supervisor_config.write_text(config)
            self.paths.processes.write_text(listing)
            if kind == "docker":
                self._docker_runs.touch()
                self._docker_keeps.touch()
                self._docker().start()
            self._supervisor.launch(os.environ)
        wait = StartupWait(self.activity, limit_s=limit_s)
        names = [process.name for process in everything]
        with ReadinessDisplay(self._console, [*names, "topics"]) as display:
            for process in infrastructure:
                self._supervisor.start(process.name)
            self._wait([process for process in infrastructure if process.name == "kafka"], display, wait)
            display.update({"topics": "being created"})
            self._answered(self._create_topics, wait)
            display.update({"topics": None})
            for process in self._services:
                self._supervisor.start(process.name)
            self._wait([self._mlflow], display, wait)
            self._wait(everything, display, wait, model_expected=self._answered(self._model_exists, wait))

    def _infrastructure(self, kind: BrokerKind) -> list[Process]:
        if kind != "embedded":
            return [self._mlflow]
        node = broker.Node(self.paths.kafka, self._settings.kafka_port, self._settings.kafka_controller_port)
        if not self._supervisor.running() and is_taken(node.controller_port):
            raise PortTaken(
                f"port {node.controller_port} (Kafka's controller) is taken; free it or set"
                " CENTINELA_KAFKA_CONTROLLER_PORT to another one"
            )
        return [kafka_process(self._settings, broker.broker_command(node)), self._mlflow]

    def _wait(
        self, processes: list[Process], display: ReadinessDisplay, wait: StartupWait, *, model_expected: bool = False
    ) -> None:
        starts: dict[str, set[int]] = {process.name: set() for process in processes}
        waiting: dict[str, str | None] = {process.name: "not started" for process in processes}
        while any(waiting.values()):
            states = self._supervisor.states()
            for process in processes:
                state = states[process.name]
                waiting[process.name] = self._waiting(process, state, model_expected=model_expected)
                starts[process.name].add(state.started_at)
                if state.state == "FATAL" or len(starts[process.name] - {0}) > _RESTARTS_TOLERATED + 1:
                    raise StartFailed(f"{process.name} keeps ending at its start:\n{self._log_tail(process.name)}")
            display.update(waiting)
            if (problem := wait.problem()) is not None:
                unready = "; ".join(f"{name} {reason}" for name, reason in waiting.items() if reason)
                raise StartFailed(f"the stack {problem}: {unready}. The logs are in {self.paths.log}")
            time.sleep(0.2)

    def _answered(self, call: Callable[[Settings], T], wait: StartupWait) -> T:
        """What *call* gives, once Kafka or MLflow has an answer for it."""
        while True:
            try:
                return call(self.connection)
            except DependencyUnavailable as error:
                if (problem := wait.problem()) is not None:
                    raise StartFailed(f"the stack {problem}: {error}. The logs are in {self.paths.log}") from error
                time.sleep(0.5)

    def activity(self) -> tuple[float, int]:
        """CPU seconds of all processes and the size of their logs: what changes while anything makes progress."""
        pids = [state.pid for state in self._supervisor.states().values() if state.pid]
        return activity(pids, self.paths.log.glob("*.log"))

    def _waiting(self, process: Process, state: ProcessState, *, model_expected: bool) -> str | None:
        if process.ready_path is None:
            return (
                None if state.state == "RUNNING" and broker.answers(self.bootstrap_servers) else "does not answer yet"
            )
        answer = ask(process.url + process.ready_path) if state.state == "RUNNING" else None
        return waits_for(state.state, answer, model_expected=model_expected)

    def _down(self) -> bool:
        ran = self._supervisor.running()
        self._supervisor.shutdown()
        if self._docker_runs.exists():
            self._docker().stop()
            self._docker_runs.unlink()
            ran = True
        return ran

    @property
    def _docker_runs(self) -> Path:
        """Exists while a broker of this stack may run in Docker."""
        return self.paths.run / "docker-runs"

    @property
    def _docker_keeps(self) -> Path:
        """Exists while Docker may keep data of this stack."""
        return self.paths.run / "docker-keeps"

    def _docker(self) -> DockerBroker:
        return DockerBroker(
            f"centinela-{self.paths.digest}", {**os.environ, "CENTINELA_KAFKA_PORT": str(self._settings.kafka_port)}
        )

    def _log_tail(self, name: str) -> str:
        log = self.paths.log / f"{name}.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return "\n".join([*lines[-15:], f"(whole log: {log})"])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.paths.run.mkdir(parents=True, exist_ok=True)
        with self.paths.lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StartFailed("another `centinela up` or `down` is at work on this folder; wait for it") from error
            yield
