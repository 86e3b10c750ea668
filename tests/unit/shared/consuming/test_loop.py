"""The consumer loop on the fake broker: what is committed, what is repeated, and what the handler is told."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from centinela.consuming.handler import Outcome
from centinela.consuming.loop import ConsumerLoop, SinkLoop
from centinela.consuming.options import LoopOptions
from centinela.errors import DependencyUnavailable
from centinela.kafka.port import Outgoing
from centinela.liveness.health import Health
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeProducer, FakeTransactionalProducer
from tests.support.loop_rig import GROUP, NOW, P0, P1, SINK, SOURCE, Copying, Rig


def test_events_and_offsets_are_committed_together() -> None:
    rig = Rig()
    rig.fill(b"a", b"b")

    rig.steps()

    assert rig.sink() == [b"a", b"b"]
    assert rig.committed() == {P0: 2}
    assert rig.handler.told("assigned", "process", "committed") == [
        ("assigned", P0, None),
        ("process", [b"a", b"b"]),
        ("committed", {P0: 2}),
    ]
    assert rig.health.ready


def test_an_invalid_record_is_dead_lettered_and_does_not_block_its_partition() -> None:
    rig = Rig()
    rig.broker.append(SOURCE, b"bad", b"user-7", headers=(("traceparent", b"00"),))
    rig.fill(b"good")

    rig.steps()

    [dead] = rig.broker.records("transactions-dlq")
    assert (dead.key, dead.value) == (b"user-7", b"bad")
    assert dict(dead.headers) == {
        "traceparent": b"00",
        "dlq.reason": b"malformed_json",
        "dlq.detail": b"no JSON",
        "dlq.topic": b"transactions",
        "dlq.partition": b"0",
        "dlq.offset": b"0",
        "dlq.at": b"2018-04-01T00:00:00+00:00",
    }
    assert rig.sink() == [b"good"]
    assert rig.committed() == {P0: 2}


def counted(topic: str) -> dict[str, float]:
    """What became of the records of *topic* so far."""
    samples = [
        sample
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "centinela_consumer_records_total"
    ]
    return {sample.labels["outcome"]: sample.value for sample in samples if sample.labels["topic"] == topic}


def test_records_are_counted_by_topic_and_by_what_became_of_them() -> None:
    broker, other = FakeBroker(), "other-records"
    broker.append("some-records", b"a")
    broker.append("some-records", b"bad")
    broker.append(other, b"b")
    broker.append(other, b"c")
    loop = SinkLoop(
        FakeConsumer(broker, GROUP),
        FakeProducer(broker),
        Copying(),
        topics=["some-records", other],
        health=Health(),
        stop=threading.Event(),
        options=LoopOptions(poll_timeout_s=0),
    )

    for _ in range(4):
        loop.run_once()

    assert counted("some-records") == {"processed": 1, "dead_lettered": 1}
    assert counted(other) == {"processed": 2}


def test_what_lies_before_the_committed_offset_is_replayed_without_effect() -> None:
    rig = Rig()
    rig.fill(b"a", b"b", b"c")
    rig.broker.group(GROUP).committed[P0] = 2
    rig.handler.restore = {P0: 1}

    rig.steps()

    assert rig.handler.told("replay", "process") == [("replay", [b"b"]), ("process", [b"c"])]
    assert rig.sink() == [b"c"]
    assert rig.committed() == {P0: 3}


def test_a_snapshot_newer_than_the_committed_offset_is_refused() -> None:
    rig = Rig()
    rig.fill(b"a", b"b")
    rig.broker.group(GROUP).committed[P0] = 1
    rig.handler.restore = {P0: 2}

    with pytest.raises(ValueError, match="restored 2"):
        rig.steps()


def test_a_held_tail_comes_again_and_the_other_partitions_go_on() -> None:
    rig = Rig(partitions=2, defer_s=1.0)
    rig.fill(b"a", b"b", b"c")
    rig.fill(b"x", partition=1)
    rig.handler.defer_from = {P0: 1}
    rig.steps()
    rig.fill(b"y", partition=1)
    rig.steps()

    assert sorted(v for v in rig.sink() if v) == [b"a", b"x", b"y"]
    assert rig.committed() == {P0: 1, P1: 2}

    rig.handler.defer_from = {}
    rig.clock.set(NOW + timedelta(seconds=2))
    rig.steps()

    assert sorted(v for v in rig.sink() if v) == [b"a", b"b", b"c", b"x", b"y"]
    assert rig.committed() == {P0: 3, P1: 2}


def test_a_handler_that_is_not_ready_gets_nothing_but_keeps_its_place_in_the_group() -> None:
    rig = Rig()
    rig.handler.is_ready = False
    rig.handler.waiting_for = "a verified model"
    rig.fill(b"a")
    rig.steps()

    assert rig.handler.told("process") == []
    assert rig.consumer.assignment() == {P0}
    assert rig.health.unmet() == {"handler": "a verified model"}

    rig.handler.is_ready = True
    rig.steps()

    assert rig.sink() == [b"a"]
    assert rig.health.ready


def test_an_idle_handler_may_emit() -> None:
    rig = Rig(idle_s=1.0)
    rig.steps()
    rig.handler.idle_event = Outgoing(SINK, b"watermark")
    rig.steps()
    quiet = rig.sink()

    rig.clock.set(NOW + timedelta(seconds=1))
    rig.steps()

    assert quiet == []
    assert rig.sink() == [b"watermark"]


def test_a_loop_that_is_stopped_lets_its_handler_snapshot_and_leaves() -> None:
    rig = Rig()
    rig.fill(b"a")
    rig.steps()
    rig.stop.set()

    rig.loop.run()

    assert rig.handler.told("revoked", "dropped") == [("revoked", P0), ("dropped", P0)]
    assert rig.broker.group(GROUP).members == []
    assert rig.consumer.closed
    assert rig.producer.closed


def test_a_revoked_partition_may_be_snapshotted_and_a_lost_one_may_not() -> None:
    rig = Rig(partitions=2)
    rig.steps()
    other = Rig(broker=rig.broker)
    other.steps()
    rig.steps()
    rig.broker.evict(other.consumer)
    other.loop.run_once()

    [(_, moved)] = rig.handler.told("revoked")
    assert rig.handler.told("dropped") == [("dropped", moved)]
    assert other.handler.told("assigned") == [("assigned", moved, None)]
    assert other.handler.told("revoked", "dropped") == [("dropped", moved)]


def test_two_members_share_the_work_and_every_record_takes_effect_once() -> None:
    rig = Rig(partitions=4, batch=3)
    for n in range(40):
        rig.fill(b"%d" % n, partition=n % 4)
    rig.steps(5)
    other = Rig(broker=rig.broker, batch=3)
    for _ in range(30):
        rig.loop.run_once()
        other.loop.run_once()

    assert sorted(int(v) for v in rig.sink() if v) == list(range(40))


def test_a_sink_commits_after_its_handler_and_repeats_what_failed() -> None:
    broker = FakeBroker()
    handler, stop = Copying(), threading.Event()
    loop = SinkLoop(
        FakeConsumer(broker, GROUP),
        FakeProducer(broker),
        handler,
        topics=[SOURCE],
        health=Health(),
        stop=stop,
        options=LoopOptions(poll_timeout_s=0),
    )
    broker.append(SOURCE, b"bad")
    broker.append(SOURCE, b"a")
    handler.errors = [DependencyUnavailable("no space left", dependency="disk")]

    for _ in range(6):
        loop.run_once()

    assert broker.committed(GROUP) == {P0: 2}
    assert [r.value for r in broker.records("transactions-dlq")] == [b"bad"]
    assert handler.told("process") == [("process", [b"bad", b"a"])]


def test_a_plain_function_will_do() -> None:
    broker = FakeBroker()
    broker.append(SOURCE, b"a")
    loop = ConsumerLoop(
        FakeConsumer(broker, GROUP),
        FakeTransactionalProducer(broker),
        lambda records: Outcome(),
        topics=[SOURCE],
        health=Health(),
        stop=threading.Event(),
        options=LoopOptions(poll_timeout_s=0),
    )

    for _ in range(3):
        loop.run_once()

    assert broker.committed(GROUP) == {P0: 1}
