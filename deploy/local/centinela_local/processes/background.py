"""A child process in the background, with its log in a file, that never outlives its parent."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from centinela_local.errors import StartFailed
from centinela_local.processes.parent_death import set_parent_death_signal
from centinela_local.processes.startup import LIMIT_S, STALL_S, StartupWait, activity


def _die_with_parent() -> None:
    set_parent_death_signal(signal.SIGKILL)


class BackgroundProcess:
    """Runs *command* in a process group of its own, output appended to *log*.

    Args:
        name: What messages call it.
        answers: Whether it is ready; asked repeatedly by ``start``.
        stall_s: Longest wait for its answer while its log and CPU time stand still.
        limit_s: Longest wait for its answer in all.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        answers: Callable[[], bool],
        env: Mapping[str, str] | None = None,
        stall_s: float = STALL_S,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._name = name
        self._command = list(command)
        self._log = log
        self._answers = answers
        self._env = {**os.environ, **(env or {})}
        self._stall_s = stall_s
        self._limit_s = limit_s
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers.

        Raises:
            StartFailed: It ended, or makes no progress; it is stopped then.
        """
        self.launch()
        self.await_answer()

    def launch(self) -> None:
        """Start without waiting."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def await_answer(self) -> None:
        """Wait until what was launched answers.

        Raises:
            StartFailed: It ended, or makes no progress; it is stopped then.
        """
        process = self._process
        assert process is not None, f"{self._name} was not launched"
        pid = process.pid
        wait = StartupWait(lambda: activity([pid], [self._log]), stall_s=self._stall_s, limit_s=self._limit_s)
        try:
            while not self._answers():
                if process.poll() is not None:
                    raise StartFailed(f"{self._name} ended with code {process.returncode}:\n{self._tail()}")
                if (problem := wait.problem()) is not None:
                    raise StartFailed(f"{self._name} {problem}:\n{self._tail()}")
                time.sleep(0.05)
        except BaseException:
            self.stop(grace_s=0)
            raise

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send *number* to the whole process group; does nothing where it does not run."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def stop(self, grace_s: float = 15.0) -> None:
        """End the whole process group: SIGTERM, and SIGKILL after *grace_s*. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        if grace_s > 0 and process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:]) + f"\n(whole log: {self._log})"
