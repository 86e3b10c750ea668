"""Deadlines for calls that have none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class DeadlineExceeded(Exception):
    """The call did not return in time and still runs."""


class DeadlineRunner:
    """Runs calls one after another on a daemon thread, so that a call that hangs does not block the caller.

    After a ``DeadlineExceeded`` the runner is stuck behind that call: throw it away.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def run(self, call: Callable[[], T], timeout_s: float) -> T:
        """The result of *call*.

        Raises:
            DeadlineExceeded: It did not return within *timeout_s*.
        """
        done = threading.Event()
        result: list[T] = []
        error: list[BaseException] = []

        def attempt() -> None:
            try:
                result.append(call())
            except BaseException as raised:
                error.append(raised)
            finally:
                done.set()

        self._calls.put(attempt)
        if not done.wait(timeout_s):
            raise DeadlineExceeded(f"no answer within {timeout_s:g} s")
        if error:
            raise error[0]
        return result[0]

    def close(self) -> None:
        """End the thread once it is idle."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def call_with_deadline(call: Callable[[], T], timeout_s: float, *, name: str) -> T:
    """The result of one *call*, made on a daemon thread called *name*.

    Raises:
        DeadlineExceeded: It did not return within *timeout_s*.
    """
    runner = DeadlineRunner(name)
    try:
        return runner.run(call, timeout_s)
    finally:
        runner.close()
