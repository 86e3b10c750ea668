"""What the end-to-end tests share: a stack of separate processes for each file, a load, and a reader of the log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import httpx
import pytest

from centinela_local.testing.temporary_stack import TemporaryStack
from tests.support.committed_log import Log


class Answer(NamedTuple):
    """A request's end: when it was sent, what the gateway answered."""

    sent_at: float
    transaction_id: str
    status: int
    model_version: str | None


@dataclass
class Load:
    """Requests to ``/predict`` at a steady rate, whether or not the earlier ones are answered."""

    mark: str
    occurred_at: datetime
    at_once: int = 16
    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def await_answers(self, enough: Callable[[list[Answer]], bool], timeout_s: float) -> None:
        """Wait until *enough* of the answers so far.

        Raises:
            TimeoutError: They were not in time.
        """
        deadline = time.monotonic() + timeout_s
        while not enough(self.answers):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{len(self.answers)} answers, the last {self.answers[-1:]}; failures: {self.failures[:5]}"
                )
            time.sleep(0.01)

    def ask(self, client: httpx.Client, number: int) -> None:
        """Post one payment and note what came of it."""
        transaction_id, sent_at = f"{self.mark}-{number}", time.monotonic()
        try:
            response = client.post(
                "/predict",
                json={
                    "transaction_id": transaction_id,
                    "user_id": f"{self.mark}-{number % 20}",
                    "amount": 10 + number % 50,
                    "occurred_at": self.occurred_at.isoformat(),
                },
            )
        except httpx.TransportError as error:
            self.failures.append(repr(error))
            return
        if response.status_code != 200:
            self.failures.append(f"{response.status_code}: {response.text}")
        self.answers.append(Answer(sent_at, transaction_id, response.status_code, response.json().get("model_version")))


@pytest.fixture
def load() -> Callable[..., AbstractContextManager[Load]]:
    """``load(url, mark, occurred_at, rate=50)``: a context in which *rate* requests a second run against the gateway at
    *url*."""

    @contextmanager
    def run(url: str, mark: str, occurred_at: datetime, rate: float = 50.0) -> Iterator[Load]:
        running, stop = Load(mark, occurred_at), threading.Event()

        def pace(client: httpx.Client, pool: ThreadPoolExecutor) -> None:
            due, number = time.monotonic(), 0
            while not stop.wait(max(0.0, due - time.monotonic())):
                pool.submit(running.ask, client, number)
                due, number = due + 1 / rate, number + 1

        with httpx.Client(base_url=url, timeout=20) as client, ThreadPoolExecutor(running.at_once) as pool:
            pacing = threading.Thread(target=pace, args=(client, pool), name="load", daemon=True)
            pacing.start()
            try:
                yield running
            finally:
                stop.set()
                pacing.join()

    return run


@pytest.fixture(scope="module")
def stack_in(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[TemporaryStack]]:
    """``stack_in(name, demo=False)``: a context in which a stack may run; nothing of it may be left after ``centinela
    down``."""

    @contextmanager
    def run(name: str, *, demo: bool = False) -> Iterator[TemporaryStack]:
        stack = TemporaryStack(tmp_path_factory.mktemp(name), demo=demo)
        try:
            yield stack
        finally:
            left = stack.down()
            assert not left, f"still there after `centinela down`: {left}"

    return run


@pytest.fixture(scope="module")
def open_log() -> Iterator[Callable[..., Log]]:
    """``open_log(stack, tail=None)``: the committed log of *stack*."""
    opened: list[Log] = []

    def open_(stack: TemporaryStack, tail: int | None = None) -> Log:
        opened.append(Log(stack.bootstrap_servers, tail))
        return opened[-1]

    yield open_
    for log in opened:
        log.close()
