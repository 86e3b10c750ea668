"""Redriving on a real broker, killed on the way: each letter once, and the audit reconciles."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator

import pytest

from centinela.clock import SystemClock
from centinela.consuming.table_reader import TableReader
from centinela.deadletters.entries import history_of, redriven_from
from centinela.deadletters.record import dead_letter
from centinela.kafka import connect
from centinela.kafka.port import Outgoing, Record
from centinela.kafka.topic_admin import TopicAdmin, TopicSpec
from centinela.operations.reconcile import LogAudit
from centinela.operations.redrive import DeadLetterStore, Filter
from centinela.settings import Settings
from tests.support.waiting import until

DEADLINE_S = 60.0
COUNT = 600
REDRIVE = textwrap.dedent("""
    import sys
    from centinela.clock import SystemClock
    from centinela.kafka import connect
    from centinela.operations.redrive import Filter, DeadLetterStore
    from centinela.settings import Settings

    servers, dlq, transactional_id = sys.argv[1:]
    settings = Settings(kafka_bootstrap_servers=servers)
    store = DeadLetterStore(lambda: connect.consumer(settings, group=None), [dlq], SystemClock(), batch=2)
    producer = connect.transactional_producer(settings, transactional_id=transactional_id)
    store.redrive(producer, Filter(), by="ana")
""")


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
def names(settings: Settings, topic_names: Callable[[str], str]) -> tuple[str, str, str]:
    log = topic_names("transactions")
    made = (log, topic_names("predictions"), f"{log}-dlq")
    admin = TopicAdmin(settings)
    try:
        admin.create([TopicSpec(name, 2, 1, {}) for name in made])
    finally:
        admin.close()
    return made


@pytest.fixture
def log(settings: Settings, names: tuple[str, str, str]) -> Iterator[TableReader]:
    reader = TableReader(connect.consumer(settings, group=None), names[:1])
    yield reader
    reader.close()


def value(number: int) -> bytes:
    return b'{"transaction_id":"t-%d"}' % number


def test_a_redrive_killed_on_its_way_and_run_again_puts_each_record_back_once(
    settings: Settings, names: tuple[str, str, str], log: TableReader, unique: str
) -> None:
    producer = connect.producer(settings)
    for n in range(COUNT):
        producer.send(Outgoing(names[0], value(n), b"u-%d" % n, (("ce_id", b"%d" % n),)))
    producer.flush(DEADLINE_S)
    originals = log.read_to_end(DEADLINE_S)
    assert len(originals) == COUNT
    for record in originals:
        producer.send(dead_letter(record, "invalid_field", "odd", at=SystemClock().now()))
    producer.flush(DEADLINE_S)

    found: list[Record] = []
    killed = subprocess.Popen([sys.executable, "-c", REDRIVE, settings.kafka_bootstrap_servers, names[2], unique])
    try:

        def some() -> bool:
            found.extend(log.poll(0.05))
            return len(found) > 10

        until(some, "the first records are put back", DEADLINE_S)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait(DEADLINE_S)
    store = DeadLetterStore(lambda: connect.consumer(settings, group=None), [names[2]], SystemClock())
    again = connect.transactional_producer(settings, transactional_id=unique)
    rest = store.redrive(again, Filter(), by="ben")
    nothing = store.redrive(again, Filter(), by="ben")
    again.close()
    found += log.read_to_end(DEADLINE_S)

    assert 0 < len(rest.redrive) < COUNT - 10
    assert nothing.redrive == []
    assert sorted((r.key, r.value, r.headers[0]) for r in found) == sorted(
        (r.key, r.value, r.headers[0]) for r in originals
    )
    assert len({redriven_from(r.headers) for r in found}) == COUNT
    assert {history_of(r.headers)[-1].by for r in found} == {"ana", "ben"}

    for n in range(COUNT):
        producer.send(Outgoing(names[1], value(n), b"u-%d" % n))
    producer.close()
    reader = connect.consumer(settings, group=None)
    result = LogAudit(reader, names).read_until_reconciled(DEADLINE_S)
    reader.close()
    assert result.reconciled
    assert (result.records, result.verdicts, result.redrives.redriven, result.open_letters) == (
        2 * COUNT,
        COUNT,
        COUNT,
        0,
    )
