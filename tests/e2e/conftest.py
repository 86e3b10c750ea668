"""What the walks through the whole system share: a stack of separate processes for each file, and clients of our
own."""

from __future__ import annotations

import json
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

# An independent client: what it counts, our own code did not.
from kafka import KafkaConsumer, TopicPartition  # noqa: TID251

from centinela_local.testing.temporary_stack import TemporaryStack


class Verdict(NamedTuple):
    """What a test needs of a record in ``predictions``."""

    transaction_id: str
    score: float | None
    decision: str
    origin: str
    model_version: str | None
    occurred_at: str


class Log:
    """What stands committed in the topics of a stack, read by a plain client without a group.

    Args:
        tail: Begin so many records before the end of each partition; None: at its beginning.
    """

    def __init__(self, servers: str, tail: int | None = None) -> None:
        self._consumer = KafkaConsumer(
            bootstrap_servers=servers,
            group_id=None,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        self._partitions = [
            TopicPartition(topic, p)
            for topic in ("predictions", "transactions-dlq")
            for p in sorted(self._consumer.partitions_for_topic(topic))
        ]
        self._consumer.assign(self._partitions)
        if tail is not None:
            for partition, end in self._consumer.end_offsets(self._partitions).items():
                self._consumer.seek(partition, max(0, end - tail))
        self.verdicts: list[Verdict] = []
        self.dead_letters: list[dict[str, str]] = []
        """The headers of each."""

    def read(self) -> None:
        """Read on to the end as it is now."""
        ends = self._consumer.end_offsets(self._partitions)
        while any(self._consumer.position(partition) < ends[partition] for partition in self._partitions):
            for partition, records in self._consumer.poll(200, max_records=5_000).items():
                if partition.topic == "predictions":
                    self.verdicts += [_verdict(record.value) for record in records]
                else:
                    self.dead_letters += [
                        {name: value.decode() for name, value in record.headers} for record in records
                    ]

    def read_until(self, condition: Callable[[], bool], timeout_s: float = 90.0) -> None:
        """Read on until *condition* holds.

        Raises:
            TimeoutError: It did not in time.
        """
        deadline = time.monotonic() + timeout_s
        self.read()
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{len(self.verdicts)} verdicts and {len(self.dead_letters)} dead letters were not what was"
                    " waited for"
                )
            time.sleep(0.02)
            self.read()

    def of(self, transaction_id: str) -> list[Verdict]:
        """The verdicts on *transaction_id* read so far."""
        return [verdict for verdict in self.verdicts if verdict.transaction_id == transaction_id]

    def verdict_on(self, transaction_id: str) -> Verdict:
        """The verdict on *transaction_id*, waited for."""
        self.read_until(lambda: bool(self.of(transaction_id)))
        return self.of(transaction_id)[0]

    def newest(self) -> datetime:
        """The event time that the verdicts have reached."""
        return max(datetime.fromisoformat(verdict.occurred_at) for verdict in self.verdicts)

    def end_of(self, topic: str) -> int:
        """The number of records ever written to *topic*, which has one partition."""
        [end] = self._consumer.end_offsets([TopicPartition(topic, 0)]).values()
        return int(end)

    def close(self) -> None:
        self._consumer.close()


def _verdict(value: bytes) -> Verdict:
    event = json.loads(value)
    return Verdict(*(event.get(name) for name in Verdict._fields))


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
