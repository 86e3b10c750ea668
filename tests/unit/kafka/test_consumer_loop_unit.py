"""The consumer loop on the fake broker: what is committed, what is repeated, and what the handler is told."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from centinela.clock import FixedClock
from centinela.errors import DependencyUnavailable, InvalidRecord, ProducerFenced, TransactionAborted
from centinela.kafka.dlq import DeadLetter, DeadLetterCap, DeadLetterFlood
from centinela.kafka.fake import FakeBroker, FakeConsumer, FakeProducer, FakeTransactionalProducer
from centinela.kafka.handler import Outcome, StatefulHandler
from centinela.kafka.loop import ConsumerLoop, SinkLoop
from centinela.kafka.port import Outgoing, Record, TopicPartition
from centinela.telemetry.health import Health

NOW = datetime(2018, 4, 1, tzinfo=UTC)
GROUP, SOURCE, SINK = "g", "transactions", "predictions"
P0, P1 = TopicPartition(SOURCE, 0), TopicPartition(SOURCE, 1)


class Copying(StatefulHandler):
    """Copies each record; ``b"bad"`` is refused; keeps a history of what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.is_ready = True
        self.restore: dict[TopicPartition, int] = {}
        self.hold_from: dict[TopicPartition, int] = {}
        self.errors: list[Exception] = []
        self.idle_event: Outgoing | None = None

    def __call__(self, records: Sequence[Record]) -> Outcome:
        if self.errors:
            raise self.errors.pop(0)
        self.calls.append(("process", [r.value for r in records]))
        outcome = Outcome(held={p: o for p, o in self.hold_from.items() if any((r.topic, r.partition) == p for r in records)})
        for record in records:
            if record.offset >= outcome.held.get(TopicPartition(record.topic, record.partition), record.offset + 1):
                continue
            if record.value == b"bad":
                outcome.dead_letters.append(DeadLetter.of(record, InvalidRecord("malformed_json", "no JSON")))
            else:
                outcome.events.append(Outgoing(SINK, record.value, record.key))
        return outcome

    def ready(self) -> bool:
        return self.is_ready

    def on_assigned(self, partition: TopicPartition, committed: int | None) -> int | None:
        self.calls.append(("assigned", partition, committed))
        return self.restore.get(partition)

    def replay(self, records: Sequence[Record]) -> None:
        self.calls.append(("replay", [r.value for r in records]))

    def on_committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.calls.append(("committed", dict(offsets)))

    def on_revoked(self, partition: TopicPartition) -> None:
        self.calls.append(("revoked", partition))

    def on_dropped(self, partition: TopicPartition) -> None:
        self.calls.append(("dropped", partition))

    def idle(self) -> Outcome | None:
        return Outcome([self.idle_event]) if self.idle_event else None

    def told(self, *kinds: str) -> list[tuple[object, ...]]:
        return [call for call in self.calls if call[0] in kinds]


class Rig:
    """A loop with everything around it."""

    def __init__(self, partitions: int = 1, group: str = GROUP, broker: FakeBroker | None = None, **options: object) -> None:
        self.broker = broker or FakeBroker(partitions)
        self.handler, self.health, self.stop, self.clock = Copying(), Health("kafka"), threading.Event(), FixedClock(NOW)
        self.consumer = FakeConsumer(self.broker, group)
        self.producer = FakeTransactionalProducer(self.broker, f"{group}-{id(self)}")
        self.loop = ConsumerLoop(self.consumer, self.producer, self.handler, topics=[SOURCE], health=self.health, stop=self.stop,
                                 clock=self.clock, poll_timeout_s=0, **options)  # type: ignore[arg-type]

    def fill(self, *values: bytes, partition: int = 0) -> None:
        for value in values:
            self.broker.append(SOURCE, value, b"k", partition=partition)

    def steps(self, count: int = 6) -> None:
        for _ in range(count):
            self.loop.run_once()

    def sink(self) -> list[bytes | None]:
        return [r.value for r in self.broker.records(SINK)]

    def committed(self) -> dict[TopicPartition, int]:
        return self.broker.committed(GROUP)


def test_events_and_offsets_are_committed_together() -> None:
    rig = Rig()
    rig.fill(b"a", b"b")

    rig.steps()

    assert rig.sink() == [b"a", b"b"]
    assert rig.committed() == {P0: 2}
    assert rig.handler.told("assigned", "process", "committed") == [
        ("assigned", P0, None), ("process", [b"a", b"b"]), ("committed", {P0: 2}),
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
        "traceparent": b"00", "dlq.reason": b"malformed_json", "dlq.detail": b"no JSON", "dlq.topic": b"transactions",
        "dlq.partition": b"0", "dlq.offset": b"0", "dlq.at": b"2018-04-01T00:00:00+00:00",
    }
    assert rig.sink() == [b"good"]
    assert rig.committed() == {P0: 2}


def test_an_aborted_batch_is_undone_and_read_again_from_the_committed_offset() -> None:
    rig = Rig()
    rig.fill(b"a")
    rig.steps()
    rig.producer.fail_next_commit(TransactionAborted("stale member"))
    rig.fill(b"b")

    rig.steps()

    assert rig.sink() == [b"a", b"b"]
    assert rig.committed() == {P0: 2}
    assert rig.producer.aborts == 1
    assert rig.handler.told("process", "dropped", "assigned")[2:] == [
        ("process", [b"b"]), ("dropped", P0), ("assigned", P0, 1), ("process", [b"b"]),
    ]


def test_an_abort_before_the_first_commit_reads_again_from_where_reading_began() -> None:
    rig = Rig()
    rig.producer.fail_next_commit(TransactionAborted("stale member"))
    rig.fill(b"a", b"b")

    rig.steps()

    assert rig.sink() == [b"a", b"b"]
    assert rig.handler.told("assigned") == [("assigned", P0, None), ("assigned", P0, None)]


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
    rig = Rig(partitions=2, hold_s=1.0)
    rig.fill(b"a", b"b", b"c")
    rig.fill(b"x", partition=1)
    rig.handler.hold_from = {P0: 1}
    rig.steps()
    rig.fill(b"y", partition=1)
    rig.steps()

    assert sorted(v for v in rig.sink() if v) == [b"a", b"x", b"y"]
    assert rig.committed() == {P0: 1, P1: 2}

    rig.handler.hold_from = {}
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


def test_brokers_that_go_away_are_waited_for_and_reported_once() -> None:
    rig = Rig()
    rig.fill(b"a")
    rig.steps(1)
    rig.broker.away = True
    with capture_logs() as logs:
        rig.steps(3)
        unmet = rig.health.unmet()
        rig.broker.away = False
        rig.steps()

    assert unmet == {"kafka": "Kafka does not answer"}
    assert [e["event"] for e in logs if e["event"].startswith("dependency")] == ["dependency.became_unavailable", "dependency.recovered"]
    assert rig.health.ready
    assert rig.sink() == [b"a"]


def test_a_broker_that_is_away_at_the_start_is_waited_for() -> None:
    rig = Rig()
    rig.fill(b"a")
    rig.broker.away = True
    rig.steps(2)
    rig.broker.away = False
    rig.steps()

    assert rig.sink() == [b"a"]


def test_a_topic_that_is_missing_is_named_with_its_remedy() -> None:
    rig = Rig(broker=FakeBroker(auto_create=False))

    rig.steps(1)

    assert "centinela topics create" in rig.health.unmet()["kafka"]


def test_a_dependency_of_the_handler_that_is_away_repeats_the_batch() -> None:
    rig = Rig()
    rig.fill(b"a")
    rig.handler.errors = [DependencyUnavailable("no space left", dependency="disk")]
    rig.steps(2)
    unmet = rig.health.unmet()
    rig.steps()

    assert unmet == {"disk": "no space left"}
    assert rig.sink() == [b"a"]
    assert rig.health.ready


def test_an_unknown_exception_passes_through_and_nothing_is_committed() -> None:
    rig = Rig()
    rig.fill(b"a")
    rig.handler.errors = [KeyError("a bug")]

    with pytest.raises(KeyError):
        rig.loop.run()

    assert rig.committed() == {}
    assert rig.sink() == []
    assert rig.consumer.closed
    assert rig.producer.closed


def test_a_fenced_producer_ends_the_loop() -> None:
    rig = Rig()
    rig.fill(b"a")
    rig.steps(1)
    FakeTransactionalProducer(rig.broker, rig.producer.transactional_id).init()

    with capture_logs() as logs, pytest.raises(ProducerFenced):
        rig.loop.run()

    assert logs[-1]["event"] == "consumer.failed"
    assert rig.committed() == {}
    assert rig.consumer.closed


def test_a_flood_of_dead_letters_stops_the_loop_uncommitted() -> None:
    rig = Rig(cap=DeadLetterCap(max_share=0.5, window=10, min_records=4))
    rig.fill(b"bad", b"bad", b"bad", b"ok")

    with pytest.raises(DeadLetterFlood, match="3 of the last 4"):
        rig.steps()

    assert rig.committed() == {}
    assert rig.broker.records("transactions-dlq") == []


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
    loop = SinkLoop(FakeConsumer(broker, GROUP), FakeProducer(broker), handler, topics=[SOURCE], health=Health(), stop=stop, poll_timeout_s=0)
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
    loop = ConsumerLoop(FakeConsumer(broker, GROUP), FakeTransactionalProducer(broker), lambda records: Outcome(), topics=[SOURCE],
                        health=Health(), stop=threading.Event(), poll_timeout_s=0)

    for _ in range(3):
        loop.run_once()

    assert broker.committed(GROUP) == {P0: 1}


def test_an_outage_that_only_the_commit_meets_is_told_once_although_records_come() -> None:
    rig = Rig()
    rig.fill(b"a")
    rig.handler.errors = [DependencyUnavailable("the coordinator does not answer")] * 3
    ready_meanwhile: list[bool] = []

    with capture_logs() as logs:
        while rig.handler.errors:
            rig.loop.run_once()
            ready_meanwhile.append(rig.health.ready)
        rig.steps()

    assert [e["event"] for e in logs if e["event"].startswith("dependency")] == ["dependency.became_unavailable", "dependency.recovered"]
    assert not any(ready_meanwhile[1:])
    assert rig.sink() == [b"a"]
    assert rig.health.ready


def test_an_outage_is_over_when_there_is_nothing_left_to_commit() -> None:
    rig = Rig()
    rig.fill(b"a")
    rig.handler.errors = [DependencyUnavailable("the coordinator does not answer")]
    rig.steps(2)
    assert not rig.health.ready

    rig.broker.group(GROUP).committed[P0] = 1
    rig.steps()
    rig.clock.set(NOW + timedelta(seconds=2))
    rig.steps()

    assert rig.sink() == []
    assert rig.health.ready
