"""The consumer loop on a real broker: whatever is killed or moved, every record takes effect once, in order."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from centinela.consuming.handler import Outcome, StatefulHandler
from centinela.consuming.loop import ConsumerLoop
from centinela.consuming.options import LoopOptions
from centinela.errors import DependencyUnavailable
from centinela.kafka import connect
from centinela.kafka.confluent.consumer import ConfluentConsumer
from centinela.kafka.confluent.producers import ConfluentTransactionalProducer
from centinela.kafka.connect import Client
from centinela.kafka.port import Consumer, Outgoing, Record, TransactionalProducer
from centinela.kafka.timeouts import KafkaTimeouts
from centinela.kafka.topic_admin import TopicAdmin, TopicSpec
from centinela.liveness.health import Health
from centinela.settings import Settings
from centinela_local.testing.temporary_kafka import TemporaryBroker

DEADLINE_S = 60.0
PARTITIONS = 4
BRISK = KafkaTimeouts(request_s=1.0, transaction_s=3.0, commit_s=1.5, session_s=2.0, heartbeat_s=0.2, probe_after_s=0.5)
Topics = tuple[str, str]


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {what}"


class Sink:
    """What has been copied, as an independent read_committed reader sees it."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._consumer: Consumer = connect.consumer(settings, group=None)
        self._consumer.assign(self._consumer.partitions_of(topic))
        self.values: dict[int, list[int]] = defaultdict(list)

    def count(self) -> int:
        for record in self._poll():
            self.values[record.partition].append(int(record.value or b""))
        return sum(map(len, self.values.values()))

    def close(self) -> None:
        self._consumer.close()

    def _poll(self) -> Sequence[Record]:
        try:
            return self._consumer.poll(0.1, 5_000)
        except DependencyUnavailable:
            return ()


def make_topics(settings: Settings, source: str, sink: str) -> None:
    admin = TopicAdmin(settings)
    try:
        admin.create([TopicSpec(name, PARTITIONS, 1, {}) for name in (source, sink)])
    finally:
        admin.close()


def fill(settings: Settings, topic: str, count: int) -> dict[int, list[int]]:
    """Numbers 0 .. count - 1 over the partitions in turn; what each partition holds."""
    producer = connect.producer(settings, client="confluent")
    for number in range(count):
        producer.send(Outgoing(topic, b"%d" % number, partition=number % PARTITIONS))
    producer.flush(DEADLINE_S)
    producer.close()
    return {n: list(range(n, count, PARTITIONS)) for n in range(PARTITIONS)}


class Copying(StatefulHandler):
    """Copies, and notes its assignments."""

    def __init__(self, sink: str) -> None:
        self._sink = sink
        self.handled = 0
        self.dropped = threading.Event()

    def __call__(self, records: Sequence[Record]) -> Outcome:
        self.handled += len(records)
        return Outcome([Outgoing(self._sink, r.value, r.key, partition=r.partition) for r in records])

    def on_dropped(self, partition: object) -> None:
        self.dropped.set()


class Member:
    """A copying loop on a thread of its own."""

    def __init__(self, topics: Topics, consumer: Consumer, producer: TransactionalProducer, batch: int = 50) -> None:
        self.stop, self.health, self.handler = threading.Event(), Health("kafka"), Copying(topics[1])
        loop = ConsumerLoop(
            consumer,
            producer,
            self.handler,
            topics=[topics[0]],
            health=self.health,
            stop=self.stop,
            options=LoopOptions(batch=batch),
        )
        self._thread = threading.Thread(target=loop.run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.stop.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
def topics(settings: Settings, topic_names: Callable[[str], str]) -> Topics:
    names = (topic_names("source"), topic_names("sink"))
    make_topics(settings, *names)
    return names


@pytest.fixture
def sink(settings: Settings, topics: Topics) -> Iterator[Sink]:
    reader = Sink(settings, topics[1])
    yield reader
    reader.close()


@pytest.mark.parametrize("client", ["confluent", "kafka-python"])
def test_a_loop_killed_in_the_middle_loses_and_repeats_nothing(
    settings: Settings, topics: Topics, sink: Sink, unique: str, client: Client
) -> None:
    source, target = topics
    count = 6_000
    expected = fill(settings, source, count)
    command = [
        sys.executable,
        str(Path(__file__).with_name("copying_process.py")),
        settings.kafka_bootstrap_servers,
        client,
        source,
        target,
        f"copying-{unique}",
    ]
    for share in (0.2, 0.5):
        process = subprocess.Popen(command)
        try:
            until(lambda share=share: sink.count() >= share * count, f"{share:.0%} copied")  # type: ignore[misc]
        finally:
            process.kill()
            process.wait()
    killed_at = sink.count()
    process = subprocess.Popen(command)
    try:
        until(lambda: sink.count() >= count, "all copied")
    finally:
        process.terminate()
        assert process.wait(DEADLINE_S) == 0

    assert killed_at < count
    assert dict(sink.values) == expected


@pytest.mark.parametrize("client", ["confluent", "kafka-python"])
def test_members_that_come_and_go_lose_and_repeat_nothing(
    settings: Settings, topics: Topics, sink: Sink, unique: str, client: Client
) -> None:
    count = 20_000
    expected = fill(settings, topics[0], count)

    def join(name: str) -> Member:
        return Member(
            topics,
            connect.consumer(settings, group=unique, client=client),
            connect.transactional_producer(settings, transactional_id=f"{unique}-{name}", client=client),
        )

    first = join("first")
    until(lambda: sink.count() > 0, "the first member copies")
    second = join("second")
    until(lambda: second.handler.handled > 0 or sink.count() >= count, "the second member copies")
    shared = sink.count()
    first.end()
    until(lambda: sink.count() >= count, "all copied")
    second.end()

    assert shared < count
    assert first.handler.dropped.is_set()
    assert dict(sink.values) == expected


def test_a_broker_that_goes_and_comes_back_is_waited_for_and_nothing_is_lost_or_repeated(tmp_path: Path) -> None:
    broker = TemporaryBroker(tmp_path)
    broker.start()
    try:
        settings = Settings(kafka_bootstrap_servers=broker.bootstrap_servers)
        names = ("source", "sink")
        make_topics(settings, *names)
        expected = fill(settings, "source", 2_000)
        sink = Sink(settings, "sink")
        member = Member(
            names,
            ConfluentConsumer(broker.bootstrap_servers, "copying", timeouts=BRISK),
            ConfluentTransactionalProducer(broker.bootstrap_servers, "copying", timeouts=BRISK),
            batch=20,
        )
        until(lambda: sink.count() > 0, "copying began")
        broker.stop(grace_s=10.0)
        until(lambda: "kafka" in member.health.unmet(), "the outage is told")
        broker.start()
        until(lambda: sink.count() >= 2_000, "all copied")
        healthy = member.health.ready
        member.end()
        sink.close()
    finally:
        broker.stop()

    assert healthy
    assert dict(sink.values) == expected
