"""Dead letters are put back or closed, each exactly once, and keep their history."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer

from centinela.commands.dlq_options import FilterOptions, SelectionOptions
from centinela.commands.dlq_output import description, summarise
from centinela.deadletters.entries import (
    RecordPosition,
    history_of,
    read_entry,
    read_resolution,
    redrive_count,
    redriven_record,
)
from centinela.deadletters.record import HEADER_BYTES, dead_letter
from centinela.errors import DependencyUnavailable, ProducerFenced
from centinela.kafka.port import Headers, Record
from centinela.operations.redrive import DeadLetterStore, Filter
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeTransactionalProducer

AT = datetime(2026, 3, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 2, tzinfo=UTC)
DLQ = "transactions-dlq"
EVENT: Headers = (("ce_source", b"centinela/ingest"), ("odd", b"\xff\x00"))


class World:
    """Two topics with dead letters in two partitions each."""

    def __init__(self) -> None:
        self.broker = FakeBroker(partitions=2)
        for topic in ("transactions", "labels"):
            self.broker.partitions(topic)
            self.broker.partitions(f"{topic}-dlq")
        self.store = DeadLetterStore(lambda: FakeConsumer(self.broker), [DLQ, "labels-dlq"], FixedClock(NOW), batch=2)

    def die(self, record: Record, reason: str = "malformed_json", at: datetime = AT) -> Record:
        """A service gives *record* up."""
        letter = dead_letter(record, reason, "why", at=at)
        return self.broker.append(letter.topic, letter.value, letter.key, headers=letter.headers)

    def dead(
        self, name: str, reason: str = "malformed_json", *, topic: str = "transactions", at: datetime = AT
    ) -> Record:
        """A record came, and died."""
        return self.die(
            self.broker.append(topic, b'{"transaction_id":"%s"}' % name.encode(), name.encode(), headers=EVENT),
            reason,
            at,
        )

    def producer(self) -> FakeTransactionalProducer:
        return FakeTransactionalProducer(self.broker, "centinela-dlq")

    def redrive(self, wanted: Filter | None = None, **options: Any) -> Any:
        return self.store.redrive(self.producer(), wanted or Filter(), by="ana", **options)

    def put_back(self, topic: str = "transactions") -> list[Record]:
        """The records of *topic* that were redriven."""
        return [r for r in self.broker.records(topic) if redrive_count(r.headers)]

    def resolutions(self, topic: str = DLQ) -> list[tuple[RecordPosition, str]]:
        return [(c.dead_letter, c.kind) for c in map(read_resolution, self.broker.records(topic)) if c is not None]


def place(record: Record) -> RecordPosition:
    return RecordPosition(record.topic, record.partition, record.offset)


def test_a_redriven_record_is_the_original_with_its_history() -> None:
    world = World()
    original = world.broker.append("transactions", b"{broken", b"u-1", headers=EVENT)
    letter = world.die(original)

    world.redrive()

    [again] = world.put_back()
    assert (again.key, again.value, again.partition) == (b"u-1", b"{broken", original.partition)
    assert again.headers[:2] == EVENT
    assert not any(name.startswith("dlq.") for name, _ in again.headers)
    [failure] = history_of(again.headers)
    assert (failure.reason, failure.at, failure.position, failure.dead_letter, failure.by) == (
        "malformed_json",
        AT.isoformat(),
        str(place(original)),
        str(place(letter)),
        "ana",
    )


def test_nothing_is_redriven_twice() -> None:
    world = World()
    letters = [world.dead(f"t-{n}") for n in range(5)]

    first, second = world.redrive(), world.redrive()

    assert (len(first.redrive), len(second.redrive)) == (5, 0)
    assert sorted(r.key or b"" for r in world.put_back()) == [b"t-%d" % n for n in range(5)]
    assert sorted(world.resolutions()) == sorted((place(letter), "redriven") for letter in letters)


@pytest.mark.parametrize("commits", [0, 1, 2])
def test_after_a_crash_between_any_two_transactions_each_letter_is_redriven_once(commits: int) -> None:
    world = World()
    for n in range(6):
        world.dead(f"t-{n}")

    class Crashing(FakeTransactionalProducer):
        def commit(self, offsets: Any, consumer: Any) -> None:
            if self.commits == commits:
                raise DependencyUnavailable("killed")
            super().commit(offsets, consumer)

    with pytest.raises(DependencyUnavailable):
        world.store.redrive(Crashing(world.broker, "centinela-dlq"), Filter(), by="ana")
    assert len(world.put_back()) == 2 * commits
    world.redrive()

    assert sorted(r.key or b"" for r in world.put_back()) == [b"t-%d" % n for n in range(6)]


def test_of_two_redrives_at_a_time_the_first_writes_nothing_more() -> None:
    world = World()
    for n in range(4):
        world.dead(f"t-{n}")

    class Overtaken(FakeTransactionalProducer):
        def begin(self) -> None:
            if self.commits == 1:
                world.redrive()
            super().begin()

    with pytest.raises(ProducerFenced):
        world.store.redrive(Overtaken(world.broker, "centinela-dlq"), Filter(), by="ben")

    assert sorted(r.key or b"" for r in world.put_back()) == [b"t-%d" % n for n in range(4)]


def test_a_record_that_dies_again_keeps_its_history_and_can_be_redriven_again() -> None:
    world = World()
    world.dead("t-1", "first")
    world.redrive()
    second = world.die(world.put_back()[0], "second", NOW)

    assert read_entry(second).redrives == 1
    world.redrive()

    newest = world.put_back()[-1]
    assert redrive_count(newest.headers) == 2
    assert [(d.reason, d.at) for d in history_of(newest.headers)] == [
        ("first", AT.isoformat()),
        ("second", NOW.isoformat()),
    ]
    assert newest.headers[:2] == EVENT


def test_history_survives_headers_that_have_to_be_left_out() -> None:
    world = World()
    world.dead("t-1")
    world.redrive()
    again = world.put_back()[0]
    crowded = again._replace(headers=(("large", b"x" * (HEADER_BYTES - 100)), *again.headers))

    letter = world.die(crowded)

    assert read_entry(letter).redrives == 1
    assert len(history_of(letter.headers)) == 1
    assert read_entry(letter).cut


def test_a_record_that_several_services_refused_is_put_back_once() -> None:
    world = World()
    label = world.broker.append("labels", b"{", b"u-1")
    early = [world.die(label, "drift"), world.die(label, "archive")]
    world.redrive()
    late = world.die(label, "predictor")
    plan = world.redrive()

    assert len(world.put_back("labels")) == 1
    assert (len(plan.redrive), list(plan.redriven_with)) == (0, [place(late)])
    assert [letter for letter, _ in world.resolutions("labels-dlq")] == [place(r) for r in (*early, late)]


def test_a_letter_that_is_less_than_its_record_and_one_of_a_file_stay_open() -> None:
    world = World()
    world.die(Record("transactions", 0, 77, b"k", b"x" * 1_100_000))
    world.broker.append(
        DLQ, b"a;b", headers=(("dlq.reason", b"invalid_field"), ("dlq.source", b"replay/own.csv"), ("dlq.row", b"7"))
    )

    plan = world.redrive()

    assert dict(plan.obstacles) == {"cut_short": 1, "never_in_a_topic": 1}
    assert world.put_back() == []
    assert len(world.store.survey(Filter()).open()) == 2


def test_a_letter_with_an_obstacle_is_no_record() -> None:
    world = World()
    row = world.broker.append(DLQ, b"a;b", headers=(("dlq.row", b"7"),))
    with pytest.raises(ValueError, match="never_in_a_topic"):
        redriven_record(row, read_entry(row), by="ana", at=NOW)


def test_a_dropped_letter_stays_with_who_and_why_beside_it() -> None:
    world = World()
    letter = world.dead("t-1")
    dropped = world.store.drop(world.producer(), Filter(), by="ana", why="a test of the till")

    [kept] = [r for r in world.broker.records(DLQ) if read_resolution(r) is None]
    [resolution] = [c for c in map(read_resolution, world.broker.records(DLQ)) if c is not None]
    assert (dropped, kept) == (1, letter)
    assert (resolution.dead_letter, resolution.kind, resolution.by, resolution.why, resolution.at) == (
        place(letter),
        "dropped",
        "ana",
        "a test of the till",
        NOW.isoformat(),
    )
    assert world.redrive().redrive == []
    assert world.store.drop(world.producer(), Filter(), by="ben", why="again") == 0


def test_a_plan_writes_nothing_and_fences_nobody() -> None:
    world = World()
    world.dead("t-1")
    running = world.producer()
    running.init()
    before = [world.broker.records(topic) for topic in (DLQ, "transactions")]

    plan = world.store.plan(Filter())

    assert len(plan.redrive) == 1
    assert [world.broker.records(topic) for topic in (DLQ, "transactions")] == before
    running.begin()


def test_a_limit_leaves_the_rest_for_the_next_time() -> None:
    world = World()
    for n in range(5):
        world.dead(f"t-{n}")

    counts = [len(world.redrive(limit=2).redrive) for _ in range(4)]

    assert counts == [2, 2, 1, 0]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Filter(reason="late"), {"b"}),
        (Filter(transaction_id="c"), {"c"}),
        (Filter(source="centinela/ingest"), {"a", "b", "c"}),
        (Filter(source="elsewhere"), set()),
        (Filter(since=AT + timedelta(hours=1)), {"c"}),
        (Filter(until=AT + timedelta(hours=1)), {"a", "b"}),
        (Filter(reason="late", transaction_id="a"), set()),
    ],
)
def test_only_what_a_filter_admits_is_meant(wanted: Filter, names: set[str]) -> None:
    world = World()
    world.dead("a")
    world.dead("b", "late")
    world.dead("c", at=AT + timedelta(hours=2))

    assert {letter.transaction_id for letter in world.store.survey(wanted).open()} == names


def test_a_partition_is_the_one_that_the_record_was_in() -> None:
    world = World()
    world.die(Record("transactions", 0, 900, b"k", b"{"))
    world.die(Record("transactions", 1, 901, b"k", b"{"))

    [letter] = world.store.survey(Filter(partition=1)).open()

    assert letter.origin == RecordPosition("transactions", 1, 901)


def test_one_letter_can_be_named() -> None:
    world = World()
    chosen = world.dead("a")
    world.dead("b")

    world.redrive(Filter(positions=frozenset({place(chosen)})))

    assert [r.key for r in world.put_back()] == [b"a"]


def test_counts_stand_by_topic_and_reason_with_what_became_of_the_letters() -> None:
    world = World()
    for n in range(3):
        world.dead(f"t-{n}", at=AT + timedelta(seconds=n))
    world.dead("l-1", "late", topic="labels")
    world.redrive(Filter(reason="malformed_json"), limit=1)
    world.store.drop(world.producer(), Filter(reason="late"), by="ana", why="x")

    summary = summarise(world.store.survey(Filter()), newest=1)

    rows = {
        (row["topic"], row["reason"]): (row["open"], row["redriven"], row["dropped"], row["newest"])
        for row in summary["counts"]
    }
    assert rows[DLQ, "malformed_json"][3] == "2026-03-01T00:00:02+00:00"
    assert rows[DLQ, "malformed_json"][:3] == (2, 1, 0)
    assert rows["labels-dlq", "late"][:3] == (0, 0, 1)
    assert len(summary["newest"]) == 1


def test_a_letter_is_described_without_the_user() -> None:
    world = World()
    record = world.die(
        world.broker.append("transactions", b'{"transaction_id":"t-1","user_id":"maria","amount":-1}', b"maria"),
        "invalid_field",
    )

    found = description(record, world.store.survey(Filter()), "salt")

    assert "maria" not in str(found)
    assert (found["reason"], found["state"], found["value"]["transaction_id"], found["value"]["amount"]) == (
        "invalid_field",
        "open",
        "t-1",
        -1,
    )
    assert found["position"].startswith("transactions:")


def test_a_place_that_holds_no_record_is_none() -> None:
    world = World()
    letter = world.dead("a")

    assert world.store.find(place(letter)) == letter
    assert world.store.find(RecordPosition(DLQ, letter.partition, 99)) is None
    assert world.store.find(RecordPosition(DLQ, 7, 0)) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: SelectionOptions().filter(),
        lambda: FilterOptions(since="yesterday").filter(),
        lambda: SelectionOptions(letter=["transactions-dlq:x:1"]).filter(),
        lambda: SelectionOptions(letter=["elsewhere:1:1"]).filter(),
    ],
)
def test_a_command_that_does_not_say_which_letters_is_refused(call: Callable[[], Filter]) -> None:
    with pytest.raises(typer.BadParameter):
        call()


def test_a_foreign_resolution_resolves_nothing() -> None:
    world = World()
    world.dead("a")
    world.broker.append(DLQ, None, headers=(("dlq.closed", b"burnt"), ("dlq.letter", b"x")))

    assert len(world.store.survey(Filter()).open()) == 1


def test_a_record_without_a_key_goes_back_to_its_own_partition() -> None:
    world = World()
    world.die(Record("transactions", 1, 50, None, b"{"))

    world.redrive()

    assert [r.partition for r in world.put_back()] == [1]


def test_the_resolution_is_in_the_dead_letters_partition() -> None:
    world = World()
    letters = [world.die(Record("transactions", n % 2, 100 + n, None, b"{")) for n in range(4)]
    world.redrive()

    stands = {c.dead_letter: r.partition for r in world.broker.records(DLQ) if (c := read_resolution(r)) is not None}
    assert stands == {place(letter): letter.partition for letter in letters}


def test_a_letter_whose_header_names_another_topic_is_not_written_there() -> None:
    world = World()
    odd = dead_letter(Record("secrets", 0, 1, b"k", b"v"), "x", "", at=AT)
    world.broker.append(DLQ, odd.value, odd.key, headers=odd.headers)

    plan = world.redrive()

    assert dict(plan.obstacles) == {"foreign_origin": 1}
    assert world.broker.records("secrets") == []
