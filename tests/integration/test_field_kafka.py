"""Cases from the field that need Kafka itself: a group that is deleted under a stopped stream."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from kafka.admin import KafkaAdminClient  # noqa: TID251 - what an operator does

from centinela.consuming.table_reader import open_table
from centinela.events import TransactionReceived, encode
from centinela.groups import STREAM
from centinela.kafka.connect import group_admin, producer
from centinela.kafka.port import Outgoing, Producer
from centinela.kafka.topic_admin import TopicAdmin
from centinela_predictor.settings import PredictorSettings
from tests.support.predictor_world import transaction
from tests.support.stream_process import DEADLINE_S, Stream, Verdicts


@pytest.fixture
def settings(make_settings: Callable[..., PredictorSettings]) -> PredictorSettings:
    made = make_settings(PredictorSettings)
    admin = TopicAdmin(made)
    admin.create()
    admin.close()
    return made


@pytest.fixture
def stream(settings: PredictorSettings, tmp_path: Path, unique: str) -> Iterator[Stream]:
    running = Stream(tmp_path, settings.kafka_bootstrap_servers, f"FraudDetector-{unique}")
    running.start()
    yield running
    running.close()


def send(sender: Producer, transactions: Sequence[TransactionReceived]) -> None:
    for one in transactions:
        sender.send(Outgoing("transactions", encode(one), (one.user_id or "").encode()))
    sender.flush(20)


def delete_the_group(settings: PredictorSettings) -> None:
    """As soon as its last member is missed."""
    groups = group_admin(settings)
    deadline = time.monotonic() + DEADLINE_S
    while groups.members(STREAM.name):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    admin.delete_groups([STREAM.name])
    admin.close()


def test_a_stream_whose_group_is_deleted_while_it_is_stopped_judges_nothing_twice(
    stream: Stream, settings: PredictorSettings, unique: str
) -> None:
    transactions = [
        msgspec.structs.replace(transaction(n, user=f"{unique}-{n % 50}"), transaction_id=f"{unique}-{n}")
        for n in range(600)
    ]
    sender = producer(settings)
    table = open_table(settings, ["predictions"])
    verdicts = Verdicts(table, unique, stream)

    send(sender, transactions[:400])
    verdicts.wait_for(400)
    stream.send_signal(signal.SIGSTOP)
    send(sender, transactions[400:500])
    delete_the_group(settings)
    stream.send_signal(signal.SIGCONT)
    send(sender, transactions[500:])
    verdicts.wait_for(600)
    code = stream.end(signal.SIGTERM)
    while verdicts.read():
        pass
    sender.close()
    table.close()

    assert code == 0
    assert Counter(verdict.transaction_id for verdict in verdicts.found) == Counter(
        one.transaction_id for one in transactions
    )
    assert "group.offset_missing" in stream.output()
