"""A loop that cannot commit, or makes no progress: what ends it, what is reported, and what it may wait for."""

from __future__ import annotations

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from centinela.consuming.committer import ProducerStuck
from centinela.errors import DependencyUnavailable, TransactionAborted
from centinela.liveness.progress import Patience
from centinela.liveness.watchdog import Watchdog
from tests.support.loop_rig import NOW, P0, Rig

PATIENCE = Patience(60.0)


def later(rig: Rig, seconds: float) -> None:
    rig.clock.set(rig.clock.now() + timedelta(seconds=seconds))


def watchdog(rig: Rig) -> Watchdog:
    return Watchdog("test", rig.loop._progress, rig.health, PATIENCE, clock=rig.clock)


def look(rig: Rig, dog: Watchdog, minutes: int, *, steps: bool = True) -> list[str]:
    """Let minutes pass with the loop coming round every five seconds, watched; the events logged."""
    with capture_logs() as logs:
        for _ in range(minutes * 12):
            later(rig, 5)
            if steps:
                rig.loop.run_once()
            dog.check()
    return [entry["event"] for entry in logs if entry["event"].startswith("consumer.")]


@pytest.mark.parametrize(
    "failure",
    [DependencyUnavailable("no answer", dependency="kafka"), TransactionAborted("stale")],
    ids=["silent", "aborted"],
)
def test_a_producer_that_cannot_commit_on_brokers_that_answer_ends_the_loop(failure: Exception) -> None:
    rig = Rig(patience=PATIENCE)
    rig.fill(b"a")
    rig.producer.fail_next_commit(failure)
    rig.steps(2)
    later(rig, 61)
    rig.producer.fail_next_commit(failure)

    with capture_logs() as logs, pytest.raises(ProducerStuck, match="no commit for 61 s although the brokers answer"):
        rig.loop.run()

    assert (logs[-1]["event"], logs[-1]["error"]) == ("consumer.failed", "ProducerStuck")
    assert rig.sink() == []
    assert rig.consumer.closed
    assert rig.producer.closed


def test_brokers_that_are_away_for_long_do_not_end_the_loop() -> None:
    rig = Rig(patience=PATIENCE)
    rig.fill(b"a")
    rig.producer.fail_next_commit(DependencyUnavailable("no answer", dependency="kafka"))
    rig.steps(2)
    rig.broker.unavailable = True
    later(rig, 600)
    rig.steps(2)
    rig.broker.unavailable = False
    rig.steps()

    assert rig.sink() == [b"a"]
    assert rig.health.ready


def test_a_loop_that_runs_but_makes_no_progress_is_stuck() -> None:
    rig = Rig(patience=PATIENCE)
    rig.fill(b"a", b"b")
    rig.steps()
    rig.consumer.hold({P0: None})  # as a client does that has forgotten a partition
    rig.fill(b"c")
    dog = watchdog(rig)

    assert look(rig, dog, 2) == ["consumer.stuck"]
    assert rig.health.reason == "test is stuck: transactions-0 has been at offset 2 of 3 for 65 s"
    rig.consumer.release([P0])
    assert look(rig, dog, 1) == ["consumer.recovered"]
    assert rig.sink() == [b"a", b"b", b"c"]


def test_a_handler_that_defers_a_record_again_and_again_is_not_stuck() -> None:
    rig = Rig(patience=PATIENCE)
    rig.fill(b"a", b"b")
    rig.handler.defer_from = {P0: 1}

    assert look(rig, watchdog(rig), 5) == ["consumer.started"]
    assert rig.health.live


def test_a_handler_that_waits_for_its_model_is_not_stuck_and_one_that_then_hangs_is() -> None:
    rig = Rig(patience=PATIENCE)
    rig.fill(b"a")
    rig.handler.is_ready = False
    dog = watchdog(rig)
    assert "consumer.stuck" not in look(rig, dog, 5)
    assert not rig.health.ready
    assert rig.health.live
    assert look(rig, dog, 2, steps=False) == ["consumer.stuck"]


def test_an_idle_loop_is_not_stuck() -> None:
    rig = Rig(patience=PATIENCE)
    rig.fill(b"a")
    assert look(rig, watchdog(rig), 30) == ["consumer.started"]
    assert rig.clock.now() > NOW + timedelta(minutes=29)
