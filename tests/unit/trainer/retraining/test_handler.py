"""The service around a training run: held requests, the child, waiting for the archive."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from centinela.consuming.loop import ConsumerLoop
from centinela.consuming.options import LoopOptions
from centinela.errors import DependencyUnavailable, TransactionAborted
from centinela.events import RetrainRequested, TrainingCompleted, encode
from centinela.kafka.port import Outgoing, Record, TopicPartition
from centinela.liveness.health import Health
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeTransactionalProducer
from centinela_trainer.archive.catch_up import wait_for_archive
from centinela_trainer.archive.store import ArchiveStore
from centinela_trainer.commands.retrain import request_for
from centinela_trainer.retraining.child_runner import EX_TEMPFAIL, ChildRunner
from centinela_trainer.retraining.handler import RetrainHandler

NOW = datetime(2026, 3, 1, tzinfo=UTC)
REQUESTS, EVENTS, MODEL = "retrain-requests", "model-events", "FraudDetector"


def request(name: str, model: str = MODEL) -> RetrainRequested:
    return RetrainRequested(request_id=name, model_name=model, requested_by="operator", as_of=NOW, reason="a test")


def answer_to(asked: RetrainRequested) -> TrainingCompleted:
    return TrainingCompleted(
        model_name=asked.model_name, request_id=asked.request_id, outcome="promoted", reason="better", completed_at=NOW
    )


class SlowRunner:
    """Answers each request at the call after ``finish``."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled = 0
        self._current: str | None = None
        self._done = False

    def finish(self) -> None:
        self._done = True

    def answer(self, asked: RetrainRequested) -> TrainingCompleted | None:
        if self._current != asked.request_id:
            self._current = asked.request_id
            self.started.append(asked.request_id)
            return None
        if not self._done:
            return None
        self._current = None
        self._done = False
        return answer_to(asked)

    def cancel(self) -> None:
        self.cancelled += 1
        self._current = None


class Service:
    def __init__(self) -> None:
        self.broker = FakeBroker()
        self.runner = SlowRunner()
        self.stop = threading.Event()
        self.producer = FakeTransactionalProducer(self.broker)
        self.loop = ConsumerLoop(
            FakeConsumer(self.broker, "trainer"),
            self.producer,
            RetrainHandler(self.runner, MODEL, EVENTS),
            topics=[REQUESTS],
            health=Health(),
            stop=self.stop,
            options=LoopOptions(defer_s=0, poll_timeout_s=0),
        )

    def ask(self, asked: RetrainRequested) -> None:
        self.broker.append(REQUESTS, encode(asked), asked.model_name.encode())

    def steps(self, count: int = 6) -> None:
        for _ in range(count):
            self.loop.run_once()

    @property
    def committed(self) -> int | None:
        return self.broker.committed("trainer").get(TopicPartition(REQUESTS, 0))

    @property
    def answered(self) -> list[bytes | None]:
        return [record.key for record in self.broker.records(EVENTS)]


def test_a_request_is_deferred_while_it_is_in_progress_and_committed_with_its_answer() -> None:
    service = Service()
    service.ask(request("one"))
    service.steps()
    assert (service.runner.started, service.answered, service.committed) == (["one"], [], None)
    service.runner.finish()
    service.steps()
    assert service.answered == [b"FraudDetector:trained:one"]
    assert service.committed == 1
    assert service.runner.started == ["one"]


def test_requests_are_answered_one_after_the_other() -> None:
    service = Service()
    for name in ("one", "two"):
        service.ask(request(name))
    service.steps()
    assert service.runner.started == ["one"]
    service.runner.finish()
    service.steps()
    assert service.runner.started == ["one", "two"]
    service.runner.finish()
    service.steps()
    assert service.answered == [b"FraudDetector:trained:one", b"FraudDetector:trained:two"]


def test_a_request_for_another_model_and_a_bad_record_do_not_block() -> None:
    service = Service()
    service.ask(request("other", "AnotherModel"))
    service.broker.append(REQUESTS, b"{", b"x")
    service.ask(request("mine"))
    service.steps()
    assert service.runner.started == ["mine"]
    assert service.committed == 2
    assert len(service.broker.records(f"{REQUESTS}-dlq")) == 1


def test_an_answer_whose_transaction_aborts_is_asked_for_again_not_lost() -> None:
    service = Service()
    service.ask(request("one"))
    service.steps()
    service.producer.fail_next_commit(TransactionAborted("stale"))
    service.runner.finish()
    service.steps()
    assert service.answered == []
    service.runner.finish()
    service.steps()
    assert service.answered == [b"FraudDetector:trained:one"]


def test_a_stop_ends_the_child_and_leaves_the_request_uncommitted() -> None:
    service = Service()
    service.ask(request("one"))
    service.steps()
    service.stop.set()
    service.loop.run()
    assert service.runner.cancelled == 1
    assert service.committed is None


class FakeProcess:
    def __init__(self, *, stubborn: bool = False) -> None:
        self.code: int | None = None
        self.stubborn = stubborn
        self.terminated = False
        self.killed = False

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.terminated = True
        if not self.stubborn:
            self.code = -15

    def kill(self) -> None:
        self.killed = True
        self.code = -9

    def wait(self, timeout: float) -> int:
        if self.code is None:
            raise subprocess.TimeoutExpired("child", timeout)
        return self.code


class Child:
    """A runner whose processes the test controls."""

    def __init__(self, folder: Path) -> None:
        self.clock = FixedClock(NOW)
        self.health = Health()
        self.processes = list[FakeProcess]()
        self.files = (folder / "none",) * 3
        self.stubborn = False
        self.runner = ChildRunner(folder, self._start, self.clock, self.health, timeout_s=100)

    def _start(self, asked: Path, answer: Path, output: Path) -> FakeProcess:
        self.files = (asked, answer, output)
        output.write_text("")
        self.processes.append(FakeProcess(stubborn=self.stubborn))
        return self.processes[-1]

    def ends(self, code: int, *, answer: TrainingCompleted | None = None, says: str = "") -> None:
        if answer is not None:
            self.files[1].write_bytes(encode(answer))
        self.files[2].write_text(says)
        self.processes[-1].code = code


def test_the_child_gets_the_request_and_its_answer_comes_back(tmp_path: Path) -> None:
    child, asked = Child(tmp_path), request("one")
    assert child.runner.answer(asked) is None
    assert json.loads(child.files[0].read_bytes())["request_id"] == "one"
    assert child.runner.answer(asked) is None
    child.ends(0, answer=answer_to(asked))
    assert child.runner.answer(asked) == answer_to(asked)
    assert len(child.processes) == 1


def test_a_crash_is_answered_as_failed_with_the_last_words(tmp_path: Path) -> None:
    child, asked = Child(tmp_path), request("one")
    child.runner.answer(asked)
    child.ends(1, says="noise\nValueError: boom\n")
    completed = child.runner.answer(asked)
    assert completed is not None
    assert completed.outcome == "failed"
    assert "boom" in completed.reason


def test_a_child_that_ends_well_without_an_answer_has_failed(tmp_path: Path) -> None:
    child, asked = Child(tmp_path), request("one")
    child.runner.answer(asked)
    child.ends(0)
    completed = child.runner.answer(asked)
    assert completed is not None
    assert completed.outcome == "failed"


def test_an_old_answer_is_never_taken_for_a_new_one(tmp_path: Path) -> None:
    child = Child(tmp_path)
    child.runner.answer(request("one"))
    child.ends(0, answer=answer_to(request("one")))
    child.runner.answer(request("one"))
    child.runner.answer(request("two"))
    child.ends(1)
    completed = child.runner.answer(request("two"))
    assert completed is not None
    assert (completed.request_id, completed.outcome) == ("two", "failed")


def test_an_unavailable_dependency_postpones_with_growing_pauses_and_is_named(tmp_path: Path) -> None:
    child, asked = Child(tmp_path), request("one")
    for round_number, pause in enumerate((1, 2, 4)):
        child.runner.answer(asked)
        assert len(child.processes) == round_number + 1
        child.ends(EX_TEMPFAIL, says="MLflow does not answer")
        assert child.runner.answer(asked) is None
        assert "MLflow" in child.health.unmet()["training"]
        child.clock.set(child.clock.now() + timedelta(seconds=pause / 2 - 0.01))
        child.runner.answer(asked)
        assert len(child.processes) == round_number + 1
        child.clock.set(child.clock.now() + timedelta(seconds=pause / 2 + 0.02))
    child.runner.answer(asked)
    child.ends(0, answer=answer_to(asked))
    assert child.runner.answer(asked) == answer_to(asked)
    assert child.health.ready


def test_a_child_that_was_killed_is_started_again_and_given_up_after_three_times(tmp_path: Path) -> None:
    child, asked = Child(tmp_path), request("one")
    for kills in range(1, 4):
        child.runner.answer(asked)
        child.ends(-9)
        assert child.runner.answer(asked) is None
        assert "signal 9" in child.health.unmet()["training"]
        child.clock.set(child.clock.now() + timedelta(seconds=31))
        assert len(child.processes) == kills
    child.runner.answer(asked)
    child.ends(-9)
    completed = child.runner.answer(asked)
    assert completed is not None
    assert completed.outcome == "failed"
    assert "code -9" in completed.reason
    assert child.health.ready


def test_kills_of_one_request_do_not_count_for_the_next(tmp_path: Path) -> None:
    child = Child(tmp_path)
    for name in ("one", "two"):
        for _ in range(3):
            child.runner.answer(request(name))
            child.ends(-9)
            assert child.runner.answer(request(name)) is None
            child.clock.set(child.clock.now() + timedelta(seconds=31))
        child.runner.answer(request(name))
        child.ends(0, answer=answer_to(request(name)))
        assert child.runner.answer(request(name)) == answer_to(request(name))


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_child_that_takes_too_long_is_ended_and_answered_as_failed(tmp_path: Path, stubborn: bool) -> None:
    child, asked = Child(tmp_path), request("one")
    child.stubborn = stubborn
    child.runner.answer(asked)
    child.clock.set(NOW + timedelta(seconds=101))
    completed = child.runner.answer(asked)
    assert completed is not None
    assert completed.outcome == "failed"
    assert (child.processes[0].terminated, child.processes[0].killed) == (True, stubborn)


def archived(root: Path, offset: int) -> ArchiveStore:
    store = ArchiveStore(root)
    store.save_offsets({TopicPartition("predictions", 0): offset})
    return store


def test_the_archive_covers_a_topic_whose_tail_is_transaction_markers(tmp_path: Path) -> None:
    broker = FakeBroker()
    producer = FakeTransactionalProducer(broker)
    producer.init()
    producer.begin()
    producer.send_all([Outgoing("predictions", b"x", b"k")])
    producer.commit({}, FakeConsumer(broker))
    wait_for_archive(FakeConsumer(broker), archived(tmp_path, 1), ["predictions"], timeout_s=0)


class Slow(FakeConsumer):
    """A client on a busy machine: what it fetches arrives with the third poll after it was assigned."""

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        super().assign(partitions)
        self.polls = 0

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        self.polls += 1
        return super().poll(timeout_s, max_records) if self.polls >= 3 else []


@pytest.mark.parametrize("tail", ["committed", "aborted", "nothing"])
@pytest.mark.parametrize("partitions", [1, 4])
def test_a_slow_client_is_not_started_again_before_it_has_passed_the_markers(
    tmp_path: Path, tail: str, partitions: int
) -> None:
    broker, store = FakeBroker(partitions), ArchiveStore(tmp_path)
    producer = FakeTransactionalProducer(broker)
    producer.init()
    producer.begin()
    producer.send_all([Outgoing("predictions", b"x", b"k", partition=number) for number in range(partitions)])
    producer.commit({}, FakeConsumer(broker))
    store.save_offsets({TopicPartition("predictions", number): 1 for number in range(partitions)})
    if tail == "aborted":
        producer.begin()
        producer.send_all([Outgoing("predictions", b"y", b"k", partition=number) for number in range(partitions)])
        producer.abort()
    elif tail == "nothing":
        store.save_offsets({TopicPartition("predictions", number): 2 for number in range(partitions)})
    wait_for_archive(Slow(broker), store, ["predictions"], timeout_s=5)


def test_a_record_behind_the_archive_is_found_by_a_slow_client_too(tmp_path: Path) -> None:
    broker = FakeBroker()
    for _ in range(3):
        broker.append("predictions", b"x")
    with pytest.raises(DependencyUnavailable, match=r"predictions\[0\] at 2 of 3"):
        wait_for_archive(Slow(broker), archived(tmp_path, 2), ["predictions"], timeout_s=0.5)


def test_the_archive_is_waited_for_until_it_holds_the_last_record(tmp_path: Path) -> None:
    class Moving(ArchiveStore):
        """Each look finds it one record further."""

        looks = 0

        def offsets(self) -> dict[TopicPartition, int]:
            self.looks += 1
            return {TopicPartition("predictions", 0): self.looks}

    broker = FakeBroker()
    for _ in range(4):
        broker.append("predictions", b"x")
    store = Moving(tmp_path)
    wait_for_archive(FakeConsumer(broker), store, ["predictions"], timeout_s=5)
    assert store.looks == 4


def test_an_archive_that_is_behind_is_waited_for_only_so_long(tmp_path: Path) -> None:
    broker = FakeBroker()
    for _ in range(3):
        broker.append("predictions", b"x")
    with pytest.raises(DependencyUnavailable, match=r"predictions\[0\] at 2 of 3"):
        wait_for_archive(FakeConsumer(broker), archived(tmp_path, 2), ["predictions"], timeout_s=0)
    wait_for_archive(FakeConsumer(broker), archived(tmp_path, 3), ["predictions"], timeout_s=0)


def test_records_that_come_after_the_call_are_not_waited_for(tmp_path: Path) -> None:
    class Growing(FakeConsumer):
        def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
            ends = super().end_offsets(partitions)
            broker.append("predictions", b"later")
            return ends

    broker = FakeBroker()
    broker.append("predictions", b"x")
    wait_for_archive(Growing(broker), archived(tmp_path, 1), ["predictions"], timeout_s=0)


def test_the_same_request_has_the_same_id_and_another_one_another() -> None:
    one = request_for(MODEL, NOW, "drift", None)
    assert request_for(MODEL, NOW.astimezone(), "drift", None) == one
    others = [
        request_for("Other", NOW, "drift", None),
        request_for(MODEL, NOW + timedelta(seconds=1), "drift", None),
        request_for(MODEL, NOW, "else", None),
        request_for(MODEL, NOW, "drift", "rf"),
    ]
    assert len({one.request_id, *(other.request_id for other in others)}) == 5
