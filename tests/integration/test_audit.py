"""The audit on a real broker: a loop's verdicts and dead letters reconcile, and what is missing is found."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from centinela.consuming.handler import Outcome
from centinela.consuming.loop import ConsumerLoop
from centinela.consuming.options import LoopOptions
from centinela.deadletters.record import DeadLetter
from centinela.errors import InvalidRecord
from centinela.kafka import connect
from centinela.kafka.port import Outgoing, Record, TopicPartition
from centinela.kafka.topic_admin import TopicAdmin, TopicSpec
from centinela.liveness.health import Health
from centinela.operations.reconcile import LogAudit, transaction_id
from centinela.settings import Settings

DEADLINE_S = 30.0
COUNT = 3_000
Names = tuple[str, str, str]


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
def names(settings: Settings, topic_names: Callable[[str], str]) -> Names:
    log = topic_names("transactions")
    made = (log, topic_names("predictions"), f"{log}-dlq")
    admin = TopicAdmin(settings)
    try:
        admin.create([TopicSpec(name, 3, 1, {}) for name in made])
    finally:
        admin.close()
    return made


@pytest.fixture
def audit(settings: Settings, names: Names) -> Iterator[LogAudit]:
    reader = connect.consumer(settings, group=None)
    yield LogAudit(reader, names)
    reader.close()


def transaction(number: int) -> bytes:
    return b'{"transaction_id":"t-%d","amount":1}' % number


def fill(settings: Settings, topic: str, values: Sequence[bytes]) -> None:
    producer = connect.producer(settings)
    for value in values:
        producer.send(Outgoing(topic, value, value))
    producer.flush(DEADLINE_S)
    producer.close()


def judge(settings: Settings, names: Names, group: str, skip: str = "") -> None:
    """One verdict for each new id, but none for *skip*; a dead letter for what has no id."""
    log, verdicts, _ = names
    seen: set[str] = set()

    def handle(records: Sequence[Record]) -> Outcome:
        outcome = Outcome()
        for record in records:
            known = transaction_id(record.value)
            if known is None:
                outcome.dead_letters.append(DeadLetter.of(record, InvalidRecord("malformed_json", "no id")))
            elif known not in seen and known != skip:
                seen.add(known)
                outcome.events.append(Outgoing(verdicts, record.value, record.key))
        return outcome

    stop, deadline = threading.Event(), time.monotonic() + DEADLINE_S
    consumer = connect.consumer(settings, group=group, client="confluent")
    producer = connect.transactional_producer(settings, transactional_id=group, client="confluent")
    loop = ConsumerLoop(
        consumer, producer, handle, topics=[log], health=Health("kafka"), stop=stop, options=LoopOptions(batch=100)
    )
    partitions = [TopicPartition(log, n) for n in range(3)]
    while loop.run_once() or any(
        (consumer.committed(partitions)[p] or 0) != end for p, end in consumer.end_offsets(partitions).items()
    ):
        assert time.monotonic() < deadline, "the log was not judged in time"
    stop.set()
    loop.run()


def test_a_judged_log_reconciles(settings: Settings, names: Names, audit: LogAudit, unique: str) -> None:
    fill(settings, names[0], [*map(transaction, range(COUNT)), transaction(0), b"{broken", b"\xff"])
    judge(settings, names, unique)

    result = audit.read_until_reconciled(DEADLINE_S)

    assert result.reconciled
    assert (result.records, result.transactions, result.verdicts) == (COUNT + 3, COUNT, COUNT)
    assert (result.duplicates, result.undecodable, result.dead_letters) == (1, 2, 2)


def test_a_verdict_that_is_missing_is_named(settings: Settings, names: Names, audit: LogAudit, unique: str) -> None:
    fill(settings, names[0], [transaction(n) for n in range(50)])
    judge(settings, names, unique, skip="t-17")

    deadline = time.monotonic() + DEADLINE_S
    while (result := audit.read()).verdicts < 49:
        assert time.monotonic() < deadline, "the verdicts did not appear"

    assert not result.reconciled
    assert audit.ids_at(names[0], result.missing) == ["t-17"]
