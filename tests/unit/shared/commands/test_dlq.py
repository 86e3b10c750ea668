"""``centinela dlq`` on a fake broker: what it shows, asks, does and refuses to do."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner, Result

from centinela.commands.dlq import Clients, app
from centinela.deadletters.entries import read_resolution, redrive_count
from centinela.deadletters.record import dead_letter
from centinela.operations.redrive import DeadLetterStore
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeTransactionalProducer
from centinela.topics import WITH_DLQ

AT = datetime(2026, 3, 1, tzinfo=UTC)
VALUE = b'{"transaction_id":"t-1","user_id":"maria","pan":"4111111111111111"}'


class World:
    def __init__(self) -> None:
        self.broker = FakeBroker()
        for topic in WITH_DLQ:
            self.broker.partitions(topic.dlq)
        self._clients = Clients(
            lambda topics: DeadLetterStore(lambda: FakeConsumer(self.broker), topics, FixedClock(AT)),
            lambda: FakeTransactionalProducer(self.broker),
        )

    def dead(self, value: bytes = VALUE, reason: str = "invalid_field") -> None:
        letter = dead_letter(self.broker.append("transactions", value, b"maria"), reason, "pan", at=AT)
        self.broker.append(letter.topic, letter.value, letter.key, headers=letter.headers)

    def run(self, *arguments: str, answer: str = "") -> Result:
        return CliRunner().invoke(app, list(arguments), input=answer, env={"COLUMNS": "200"}, obj=self._clients)

    def put_back(self) -> int:
        return sum(redrive_count(record.headers) for record in self.broker.records("transactions"))

    def closed(self) -> list[str]:
        return [
            resolution.kind
            for resolution in map(read_resolution, self.broker.records("transactions-dlq"))
            if resolution is not None
        ]


@pytest.fixture
def world() -> World:
    world = World()
    world.dead()
    return world


def test_letters_are_counted_for_people_and_for_programs(world: World) -> None:
    people, programs = world.run("list"), world.run("list", "--json")

    assert "invalid_field" in people.output
    assert "transactions-dlq:0:0" in people.output
    [row] = json.loads(programs.output)["counts"]
    assert (row["topic"], row["reason"], row["open"]) == ("transactions-dlq", "invalid_field", 1)


def test_a_letter_is_shown_without_card_data_unless_its_bytes_are_asked_for(world: World) -> None:
    shown, raw = world.run("show", "transactions-dlq:0:0"), world.run("show", "transactions-dlq:0:0", "--raw")

    assert json.loads(shown.output)["value"]["transaction_id"] == "t-1"
    assert "maria" not in shown.output
    assert "4111" not in shown.output
    assert raw.stdout_bytes == VALUE


def test_a_place_without_a_letter_is_said(world: World) -> None:
    world.run("drop", "--all", "--yes", "--why", "a test")

    assert [world.run("show", f"transactions-dlq:0:{offset}").exit_code for offset in (0, 1, 9)] == [0, 1, 1]


def test_a_dry_run_does_nothing(world: World) -> None:
    redrive, drop = world.run("redrive", "--all", "--dry-run"), world.run("drop", "--all", "--why", "x", "--dry-run")

    assert "1 to transactions" in redrive.output
    assert "1 of transactions-dlq: invalid_field" in drop.output
    assert (world.put_back(), world.closed()) == (0, [])


@pytest.mark.parametrize(("answer", "done"), [("n\n", 0), ("", 0), ("y\n", 1)])
def test_a_redrive_asks_first(world: World, answer: str, done: int) -> None:
    world.run("redrive", "--topic", "transactions", answer=answer)

    assert (world.put_back(), len(world.closed())) == (done, done)


def test_a_redrive_that_was_confirmed_by_an_option_says_what_it_did(world: World) -> None:
    first, second = (world.run("redrive", "--reason", "invalid_field", "--yes") for _ in range(2))

    assert "redriven: 1 records" in first.output
    assert "no open dead letter" in second.output
    assert world.put_back() == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("redrive", "--yes"),
        ("drop", "--yes", "--why", "x"),
        ("drop", "--all", "--yes"),
        ("drop", "--all", "--yes", "--why", " "),
        ("list", "--topic", "elsewhere"),
        ("list", "--since", "yesterday"),
        ("show", "transactions:0:0"),
        ("show", "x"),
    ],
)
def test_what_does_not_say_enough_is_refused(world: World, arguments: tuple[str, ...]) -> None:
    assert world.run(*arguments).exit_code == 2
    assert world.closed() == []


def test_who_dropped_a_letter_and_why_is_shown(world: World) -> None:
    world.run("drop", "--id", "t-1", "--yes", "--why", "a test of the till", "--by", "ana")

    closed = json.loads(world.run("show", "transactions-dlq:0:0").output)["closed"]
    assert (closed["as"], closed["by"], closed["why"]) == ("dropped", "ana", "a test of the till")
