"""Calls without a time-out of their own get one, and an unavailable broker is not asked all the time."""

from __future__ import annotations

import threading

import pytest

from centinela.errors import DependencyUnavailable
from centinela.kafka.connection import Connection
from centinela.liveness.deadline import DeadlineExceeded, DeadlineRunner


def test_a_call_that_hangs_is_given_up_at_its_deadline() -> None:
    runner, release = DeadlineRunner("test"), threading.Event()

    with pytest.raises(DeadlineExceeded):
        runner.run(lambda: release.wait(10), 0.01)

    release.set()


def test_a_call_gives_its_result_or_its_error() -> None:
    runner = DeadlineRunner("test")

    assert runner.run(lambda: 7, 10) == 7
    with pytest.raises(KeyError):
        runner.run(lambda: dict[str, int]()["missing"], 10)
    runner.close()


def test_a_client_is_made_once() -> None:
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    connection = Connection(make)

    assert connection.current is None
    assert connection.get() is connection.get() is connection.current
    assert len(made) == 1
    assert connection.drop() is made[0]
    assert connection.get() is made[1]


def test_a_failed_attempt_is_not_repeated_at_once() -> None:
    attempts: list[int] = []

    def fail() -> object:
        attempts.append(1)
        raise DependencyUnavailable("unavailable")

    connection = Connection(fail, retry_after_s=60)

    for _ in range(3):
        with pytest.raises(DependencyUnavailable):
            connection.get()
    assert len(attempts) == 1
