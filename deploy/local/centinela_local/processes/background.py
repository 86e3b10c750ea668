"""A child process in the background, with its log in a file, that never outlives its parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from centinela_local.errors import StartFailed

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class BackgroundProcess:
    """Runs *command* in a process group of its own, output appended to *log*.

    Args:
        name: What messages call it.
        answers: Whether it is ready; asked again and again by ``start``.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        answers: Callable[[], bool],
        env: Mapping[str, str] | None = None,
        start_timeout_s: float = 60.0,
    ) -> None:
        self._name, self._command, self._log, self._answers = name, list(command), log, answers
        self._env, self._start_timeout_s = {**os.environ, **(env or {})}, start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers.

        Raises:
            StartFailed: It ended, or did not answer in time; it is stopped then.
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
            StartFailed: It ended, or did not answer in time; it is stopped then.
        """
        process = self._process
        assert process is not None, f"{self._name} was not launched"
        deadline = time.monotonic() + self._start_timeout_s
        try:
            while not self._answers():
                if process.poll() is not None:
                    raise StartFailed(f"{self._name} ended with code {process.returncode}:\n{self._tail()}")
                if time.monotonic() > deadline:
                    raise StartFailed(
                        f"{self._name} did not answer within {self._start_timeout_s:.0f} s:\n{self._tail()}"
                    )
                time.sleep(0.05)
        except BaseException:
            self.stop(grace_s=0)
            raise

    def signal(self, number: signal.Signals) -> None:
        """Send *number* to the whole process group; nothing where it does not run."""
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
