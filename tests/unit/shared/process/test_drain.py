"""The end of a process within its time."""

from __future__ import annotations

import threading

import structlog

from centinela.clock import SystemClock
from centinela.process.drain import Drain


def test_what_hangs_is_left_behind_and_said_and_the_rest_is_ended() -> None:
    hangs, ended = threading.Event(), threading.Event()
    drain = Drain(SystemClock(), 0.05)

    def hang() -> None:
        hangs.wait(30)

    with structlog.testing.capture_logs() as logged:
        drain.close("stuck", hang)
        drain.close("other", ended.set)
    assert ended.wait(10)
    assert {"event": "drain.left_behind", "part": "stuck", "log_level": "warning"} in logged
    hangs.set()


def test_a_part_that_fails_at_its_end_is_logged_and_the_next_is_ended() -> None:
    ended: list[str] = []

    def fails() -> None:
        raise OSError("gone")

    drain = Drain(SystemClock(), 20)
    with structlog.testing.capture_logs() as logged:
        drain.close("first", fails)
        drain.close("second", lambda: ended.append("second"))
    assert ended == ["second"]
    assert [entry["event"] for entry in logged] == ["drain.failed"]


def test_a_thread_that_was_never_started_has_ended() -> None:
    Drain(SystemClock(), 20).join(threading.Thread())
