"""The training child as its parent sees it: start it, supervise it, read its answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import structlog
from pydantic import SecretStr

from centinela.clock import Clock
from centinela.events import RetrainRequested, TrainingCompleted, encode
from centinela.files import remove_parts
from centinela.liveness.health import Health
from centinela.liveness.retry import Backoff
from centinela.settings import Settings
from centinela_trainer import metrics
from centinela_trainer.settings import TrainerSettings

_log = structlog.get_logger(__name__)
EX_TEMPFAIL = 75
"""Exit code of a child that could not reach a dependency; its last line of standard output names it."""
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_END_S = 5.0
KILLS = 3
"""How many times a child that was killed (for its memory, say) is started again; it continues from what it logged."""
_CONDITION = "training"


class Process(Protocol):
    """What the runner needs of a child process."""

    def poll(self) -> int | None:
        """The exit code; None while it runs."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""

    def wait(self, timeout: float) -> int:
        """Wait for the exit code; raises ``subprocess.TimeoutExpired``."""


Start = Callable[[Path, Path, Path], Process]
"""(request file, answer file, file for the child's output) to the running child."""


@dataclass
class _Running:
    request: RetrainRequested
    process: Process
    since: float


class ChildRunner:
    """Runs one request at a time in a child process.

    A child that cannot reach a dependency is started again after a pause (up to 1 s, doubling up to 30 s), for as long
    as it takes; a child that a signal ended is too, but at most ``KILLS`` times.

    Args:
        folder: Holds the request, answer and output files.
        start: Starts the child.
        timeout_s: A child that takes longer is ended, and its request is answered as failed.
    """

    def __init__(self, folder: Path, start: Start, clock: Clock, health: Health, timeout_s: float) -> None:
        self._folder = folder
        self._start = start
        self._clock = clock
        self._health = health
        self._timeout_s = timeout_s
        self._running: _Running | None = None
        self._not_before = float("-inf")
        self._backoff = Backoff(first_s=_FIRST_PAUSE_S, max_s=_LONGEST_PAUSE_S)
        self._kills = 0

    def answer(self, request: RetrainRequested) -> TrainingCompleted | None:
        """The answer to *request*, or None while it is in progress. Starts the child at the first call."""
        running = self._running
        if running is not None and running.request.request_id != request.request_id:
            self.cancel()
            running = None
        if running is None:
            if self._clock.monotonic() >= self._not_before:
                self._launch(request)
            return None
        code = running.process.poll()
        if code is None:
            if self._clock.monotonic() - running.since <= self._timeout_s:
                return None
            self.cancel()
            return self._failed(request, running, f"training took longer than {self._timeout_s:g} s")
        self._finished()
        if code == EX_TEMPFAIL:
            self._postpone(request, self._last_line() or "a dependency is unavailable")
            return None
        if code < 0 and self._kills < KILLS:
            self._kills += 1
            self._postpone(request, f"the training process was killed (signal {-code}), and is started again")
            return None
        self._health.met(_CONDITION)
        self._backoff.reset()
        self._not_before = float("-inf")
        self._kills = 0
        if code != 0 or not self._answer_path.exists():
            return self._failed(request, running, f"the training process ended with code {code}: {self._last_line()}")
        completed = msgspec.json.decode(self._answer_path.read_bytes(), type=TrainingCompleted)
        metrics.TRAINING_DURATION.observe(self._clock.monotonic() - running.since)
        return completed

    def cancel(self) -> None:
        """End the child, if one runs."""
        self._kills = 0
        if self._running is None:
            return
        process = self._running.process
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(_END_S)
            _log.info("training.cancelled", request_id=self._running.request.request_id)
        self._finished()

    @property
    def _answer_path(self) -> Path:
        return self._folder / "answer.json"

    @property
    def _output_path(self) -> Path:
        return self._folder / "output.txt"

    def _launch(self, request: RetrainRequested) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_parts(self._folder)
        self._answer_path.unlink(missing_ok=True)
        request_path = self._folder / "request.json"
        request_path.write_bytes(encode(request))
        process = self._start(request_path, self._answer_path, self._output_path)
        self._running = _Running(request, process, self._clock.monotonic())
        metrics.TRAINING_RUNNING.set(1)
        _log.info(
            "training.started", request_id=request.request_id, as_of=request.as_of.isoformat(), reason=request.reason
        )

    def _postpone(self, request: RetrainRequested, reason: str) -> None:
        self._not_before = self._clock.monotonic() + self._backoff.next_s()
        self._health.wait_for(_CONDITION, reason)
        _log.warning("training.postponed", request_id=request.request_id, waiting_for=reason)

    def _finished(self) -> None:
        self._running = None
        metrics.TRAINING_RUNNING.set(0)

    def _failed(self, request: RetrainRequested, running: _Running, reason: str) -> TrainingCompleted:
        return TrainingCompleted(
            model_name=request.model_name,
            request_id=request.request_id,
            outcome="failed",
            reason=reason[:500],
            completed_at=self._clock.now(),
            duration_s=round(self._clock.monotonic() - running.since, 3),
        )

    def _last_line(self) -> str:
        try:
            lines = self._output_path.read_text(errors="replace").strip().splitlines()
        except FileNotFoundError:
            return ""
        return lines[-1][:300] if lines else ""


def start_child(settings: TrainerSettings) -> Start:
    """Starts ``python -m centinela_trainer train`` with *settings*.

    The child holds the read end of a pipe whose write end only this process holds: when this process dies, for whatever
    reason, the child reads end-of-file and exits too. Its logs go to this process's standard error. Its OpenMP threads
    sleep while they wait: spinning next to busy scorers makes training ten times slower, and the scorers too.
    """
    environment = {
        **os.environ,
        **as_environment(settings),
        "OMP_NUM_THREADS": str(settings.training_threads),
        "OMP_WAIT_POLICY": "PASSIVE",
    }

    def start(request: Path, answer: Path, output: Path) -> Process:
        with output.open("wb") as out:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "centinela_trainer",
                    "train",
                    "--request",
                    str(request),
                    "--answer",
                    str(answer),
                    "--guarded",
                ],
                stdin=subprocess.PIPE,
                stdout=out,
                env=environment,
            )

    return start


def as_environment(settings: Settings) -> dict[str, str]:
    """The variables from which another process reads equal settings, passwords included."""
    secrets = {name: value.get_secret_value() for name, value in settings if isinstance(value, SecretStr)}
    return {
        f"CENTINELA_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in (settings.model_dump(mode="json") | secrets).items()
        if value is not None
    }
