"""The consumer loop in trouble: aborts, unavailable brokers and dependencies, fencing, floods, bugs."""

from __future__ import annotations

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from centinela.deadletters.record import DeadLetterCap, DeadLetterFlood
from centinela.errors import DependencyUnavailable, ProducerFenced, TransactionAborted
from centinela.testing.kafka import FakeBroker, FakeTransactionalProducer
from tests.support.loop_rig import GROUP, NOW, P0, Rig


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
        ("process", [b"b"]),
        ("dropped", P0),
        ("assigned", P0, 1),
        ("process", [b"b"]),
    ]


def test_an_abort_before_the_first_commit_reads_again_from_where_reading_began() -> None:
    rig = Rig()
    rig.producer.fail_next_commit(TransactionAborted("stale member"))
    rig.fill(b"a", b"b")

    rig.steps()

    assert rig.sink() == [b"a", b"b"]
    assert rig.handler.told("assigned") == [("assigned", P0, None), ("assigned", P0, None)]


def test_brokers_that_go_away_are_waited_for_and_reported_once() -> None:
    rig = Rig()
    rig.fill(b"a")
    rig.steps(1)
    rig.broker.unavailable = True
    with capture_logs() as logs:
        rig.steps(3)
        unmet = rig.health.unmet()
        rig.broker.unavailable = False
        rig.steps()

    assert unmet == {"kafka": "Kafka does not answer"}
    assert [e["event"] for e in logs if e["event"].startswith("dependency")] == [
        "dependency.became_unavailable",
        "dependency.recovered",
    ]
    assert rig.health.ready
    assert rig.sink() == [b"a"]


def test_a_broker_that_is_away_at_the_start_is_waited_for() -> None:
    rig = Rig()
    rig.fill(b"a")
    rig.broker.unavailable = True
    rig.steps(2)
    rig.broker.unavailable = False
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


def test_refusals_of_misrouted_records_are_no_flood() -> None:
    rig = Rig(cap=DeadLetterCap(max_share=0.5, window=10, min_records=4))
    rig.fill(*[b"misrouted"] * 9, b"a")
    rig.steps()

    assert rig.sink() == [b"a"]
    assert rig.committed() == {P0: 10}


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

    assert [e["event"] for e in logs if e["event"].startswith("dependency")] == [
        "dependency.became_unavailable",
        "dependency.recovered",
    ]
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
