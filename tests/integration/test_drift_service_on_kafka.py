"""The drift service as a process on a real broker: panes and labels in, reports and requests out, killed in the
middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
from kafka import (  # noqa: TID251 - reads and writes what our own clients never do
    KafkaConsumer,
    KafkaProducer,
    TopicPartition,
)

from centinela.events import DriftReported, Event, FeaturePane, RetrainRequested, TrainingCompleted, encode
from centinela.kafka.connect import consumer, producer, topic_admin, transactional_producer
from centinela.kafka.header_names import UNREADABLE
from centinela.kafka.port import Outgoing, Record
from centinela.kafka.topic_admin import TopicSpec
from centinela_drift.evaluator import Topics
from centinela_drift.settings import DriftSettings
from tests.support.drift_world import START, World
from tests.support.raw_headers import RawName

PARTITIONS = 4
WORLD = World(attack_from=4)
CHILD = """
import sys
from centinela.process.start import start
from centinela_drift.bootstrap import run
from tests.support.drift_world import World
from centinela_drift.evaluator import Topics
from centinela_drift.settings import DriftSettings

settings, stop = start(DriftSettings, "drift")
world = World(attack_from=4)
run(settings, stop, topics=Topics(*sys.argv[1:]), download=lambda version, dest: world.write_bundle(dest))
"""

UNRESPONSIVE = """
from centinela_drift import broker_liveness, faust_log

faust_log._Consumer.last_answer_s = lambda self: 1.0
broker_liveness.UNRESPONSIVE_S = 2.0
broker_liveness.PROBE_EVERY_S = 1.0
"""


class Service:
    """One process under test and its topics."""

    def __init__(self, settings: DriftSettings, topics: Topics) -> None:
        self.settings, self.topics = settings, topics
        self.log = settings.data_dir.parent / "drift.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, prelude: str = "") -> None:
        environment = os.environ | {
            "CENTINELA_KAFKA_BOOTSTRAP_SERVERS": self.settings.kafka_bootstrap_servers,
            "CENTINELA_DATA_DIR": str(self.settings.data_dir),
            "CENTINELA_DRIFT_PORT": "0",
            "CENTINELA_DRIFT_GROUP": self.settings.drift_group,
            "CENTINELA_DRIFT_EVIDENTLY": "false",
            "CENTINELA_DRIFT_SNAPSHOT_SECONDS": "0.2",
            "CENTINELA_LOG_FORMAT": "json",
        }
        names = [
            self.topics.panes,
            self.topics.labels,
            self.topics.model_events,
            self.topics.reports,
            self.topics.requests,
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", prelude + CHILD, *names], env=environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def wait(self, timeout_s: float) -> int:
        assert self._process is not None
        return self._process.wait(timeout_s)

    def stop(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(20)

    def cleanup(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    @property
    def exited(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def port(self) -> int:
        lines = [
            msgspec.json.decode(line) for line in self.log.read_bytes().splitlines() if b"process.listening" in line
        ]
        return int(lines[-1]["port"])

    def get(self, path: str) -> dict[str, object]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port()}{path}", timeout=5) as answer:
            body: dict[str, object] = msgspec.json.decode(answer.read())
            return body


@pytest.fixture
def make_service(
    make_settings: Callable[..., DriftSettings], topic_names: Callable[[str], str], tmp_path: Path
) -> Iterator[Callable[[str], Service]]:
    started: list[Service] = []

    def make(name: str) -> Service:
        topics = Topics(
            *(topic_names(f"{name}-{kind}") for kind in ("panes", "labels", "model-events", "reports", "requests"))
        )
        settings = make_settings(
            DriftSettings, data_dir=tmp_path / name / "data", drift_group=topic_names(f"{name}-drift")
        )
        settings.data_dir.mkdir(parents=True)
        admin = topic_admin(settings)
        specs = [
            TopicSpec(topic + suffix, PARTITIONS if topic in (topics.panes, topics.labels) else 1, 1, {})
            for topic in (*topics.inputs, topics.reports, topics.requests)
            for suffix in ("", "-dlq")
        ]
        admin.create(specs)
        admin.close()
        service = Service(settings, topics)
        started.append(service)
        return service

    yield make
    for service in started:
        service.cleanup()


@contextmanager
def reading(service: Service, *topics: str) -> Iterator[Callable[[Callable[[list[Record]], bool]], list[Record]]]:
    """A function that reads until its condition on all records so far holds, within a deadline."""
    reader = consumer(service.settings, group=None)
    reader.assign([tp for topic in topics for tp in reader.partitions_of(topic)])
    records: list[Record] = []

    def until(condition: Callable[[list[Record]], bool]) -> list[Record]:
        deadline = time.monotonic() + 60
        while not condition(records):
            assert not service.exited, service.log.read_text()[-3000:]
            assert time.monotonic() < deadline, f"{len(records)} records; {service.log.read_text()[-3000:]}"
            records.extend(reader.poll(0.2, 500))
        return list(records)

    try:
        yield until
    finally:
        reader.close()


def send(service: Service, days: range) -> None:
    """Write *days* of the world: labels plainly, panes in one committed transaction."""
    out = producer(service.settings)
    pane_out = transactional_producer(service.settings, transactional_id=f"{service.topics.panes}-writer")
    pane_out.init()
    pane_out.begin()
    for day in days:
        panes, labels = WORLD.day(day)
        for label in labels:
            out.send(Outgoing(service.topics.labels, encode(label), label.transaction_id.encode()))
        pane_out.send_all([pane_record(service, pane) for pane in panes])
    out.flush(20)
    reader = consumer(service.settings, group=None)
    pane_out.commit({}, reader)
    out.close()
    pane_out.close()
    reader.close()


def pane_record(service: Service, pane: FeaturePane) -> Outgoing:
    return Outgoing(service.topics.panes, encode(pane), b"%d" % pane.partition, partition=pane.partition)


def send_plainly(service: Service, topic: str, *values: Event | bytes) -> None:
    out = producer(service.settings)
    for value in values:
        out.send(Outgoing(topic, encode(value) if isinstance(value, Event) else value, b"key"))
    out.flush(20)
    out.close()


def wait_for_uncommitted(service: Service, count: int) -> None:
    """Wait until the log holds *count* panes of an open transaction: what a careless reader would count."""
    reader = KafkaConsumer(
        bootstrap_servers=service.settings.kafka_bootstrap_servers, isolation_level="read_uncommitted"
    )
    reader.assign([TopicPartition(service.topics.panes, n) for n in range(PARTITIONS)])
    reader.seek_to_beginning()
    seen, deadline = 0, time.monotonic() + 20
    while seen < count:
        assert time.monotonic() < deadline, f"{seen} of {count} panes"
        seen += sum(map(len, reader.poll(200).values()))
    reader.close()


def reports(records: list[Record], topic: str) -> list[DriftReported]:
    return [msgspec.json.decode(r.value or b"", type=DriftReported) for r in records if r.topic == topic]


def has_reports(records: list[Record], topic: str, count: int) -> bool:
    return len(reports(records, topic)) >= count


def reaches_day(records: list[Record], topic: str, day: int) -> bool:
    return reports(records, topic)[-1].end.day >= day


def requests(records: list[Record], topic: str) -> list[RetrainRequested]:
    return [msgspec.json.decode(r.value or b"", type=RetrainRequested) for r in records if r.topic == topic]


def test_panes_and_labels_become_reports_and_one_request_and_a_kill_in_the_middle_changes_nothing(
    make_service: Callable[[str], Service],
) -> None:
    steady, killed = make_service("steady"), make_service("killed")
    collected = {}
    for service in (steady, killed):
        topics = service.topics
        send(service, range(9))
        service.start()
        with reading(service, topics.reports, topics.requests) as until:
            until(partial(has_reports, topic=topics.reports, count=8))
            if service is killed:
                service.kill()
            send(service, range(9, 18))
            if service is killed:
                service.start()
            records = until(partial(reaches_day, topic=topics.reports, day=18))
        assert service.stop() == 0
        collected[service] = records

    first = reports(collected[steady], steady.topics.reports)
    again = {r.report_id: r for r in reports(collected[killed], killed.topics.reports)}
    assert len(first) == 17
    assert list(again.values()) == first
    [request] = requests(collected[steady], steady.topics.requests)
    assert {r.request_id: r for r in requests(collected[killed], killed.topics.requests)} == {
        request.request_id: request
    }
    assert request.reason.startswith("average precision fell")


def test_an_aborted_pane_is_not_counted_a_bad_one_is_dead_lettered_and_training_answers_the_request(
    make_service: Callable[[str], Service],
) -> None:
    service = make_service("aborted")
    topics = service.topics
    panes, _ = WORLD.day(0)
    out = transactional_producer(service.settings, transactional_id=f"{topics.panes}-aborted")
    out.init()
    out.begin()
    out.send_all([pane_record(service, pane) for pane in panes])
    wait_for_uncommitted(service, len(panes))
    out.abort()
    out.close()
    with KafkaProducer(bootstrap_servers=service.settings.kafka_bootstrap_servers) as foreign:
        foreign.send(topics.panes, b"{no json", b"key", [(RawName(b"\xff"), b"1")]).get(20)
    send_plainly(
        service,
        topics.model_events,
        b"[]",
        TrainingCompleted(model_name="FraudDetector", request_id="r", outcome="failed", reason="", completed_at=START),
    )
    send(service, range(2))
    service.start()
    with reading(service, topics.reports, f"{topics.panes}-dlq", f"{topics.model_events}-dlq") as until:
        records = until(lambda records: len(records) >= 3)
        [report] = reports(records, topics.reports)
        assert report.count == 600
        letters = {r.topic: dict(r.headers)["dlq.reason"] for r in records if r.topic != topics.reports}
        assert letters == {f"{topics.panes}-dlq": b"malformed_json", f"{topics.model_events}-dlq": b"invalid_field"}
        assert (UNREADABLE, b"1") in next(r.headers for r in records if r.topic == f"{topics.panes}-dlq")
        assert service.get("/ready")["ready"] is True
        assert service.get("/drift")["transactions"] == 1200
    assert service.stop() == 0


def test_the_group_commits_all_that_was_taken_however_many_transactions_it_came_in(
    make_service: Callable[[str], Service],
) -> None:
    service = make_service("lag")
    for day in range(8):
        send(service, range(day, day + 1))
    service.start()
    group = consumer(service.settings, group=service.settings.drift_group)
    try:
        with reading(service, service.topics.reports) as until:
            until(lambda records: len(records) >= 7)
            panes = group.partitions_of(service.topics.panes)
            ends = group.end_offsets(panes)
            deadline = time.monotonic() + 40
            while any((offset or 0) < ends[partition] - 1 for partition, offset in group.committed(panes).items()):
                assert time.monotonic() < deadline, (ends, group.committed(panes))
                until(lambda _: True)
    finally:
        group.close()
    assert service.stop() == 0


def test_a_client_that_gets_no_answer_from_brokers_that_answer_others_ends_the_process(
    make_service: Callable[[str], Service],
) -> None:
    service = make_service("unresponsive")

    service.start(UNRESPONSIVE)

    assert service.wait(60) == 1
    assert re.search(r"the brokers have answered another client for \d+ s", service.log.read_text())
