"""Files through a real Kafka: every row is a transaction or a dead letter, counted by the other client."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from centinela.codec import Decoder
from centinela.consuming.table_reader import TableReader
from centinela.datasets.rows import LabelRule
from centinela.datasets.simulator import Profile, Simulation
from centinela.datasets.source import open_files
from centinela.events import LabelReported, TransactionReceived
from centinela.kafka import connect
from centinela.kafka.headers import header
from centinela.kafka.port import Record
from centinela.kafka.topic_admin import TopicSpec
from centinela.settings import Settings
from centinela_ingest.bulk.bulk_producer import BulkOptions, BulkProducer
from centinela_ingest.commands.replay import replay_files
from centinela_ingest.commands.simulate import simulate_days

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def read_all(settings: Settings, topic: str) -> list[Record]:
    """Everything in *topic*, read_committed, by kafka-python."""
    reader = TableReader(connect.consumer(settings, group=None, client="kafka-python"), [topic])
    try:
        return reader.read_to_end()
    finally:
        reader.close()


class Topics:
    """Three topics of one test, and a bulk that writes to them."""

    def __init__(self, settings: Settings, name: Callable[[str], str]) -> None:
        self.settings, self.transactions, self.labels = settings, name("transactions"), name("labels")
        specs = [TopicSpec(topic, 3, 1, {}) for topic in (self.transactions, self.transactions + "-dlq", self.labels)]
        connect.topic_admin(settings).create(specs)

    def run(self, action: Callable[[BulkProducer], bool], *, history: bool = False) -> BulkProducer:
        producer = connect.producer(self.settings, client="confluent", linger_ms=5)
        options = BulkOptions(
            source="replay/test", history=history, transactions_topic=self.transactions, labels_topic=self.labels
        )
        bulk = BulkProducer(producer, options)
        try:
            assert action(bulk)
        finally:
            producer.close()
        return bulk

    def read(self) -> tuple[list[Record], list[Record], list[Record]]:
        """Transactions, dead letters, labels."""
        return tuple(read_all(self.settings, t) for t in (self.transactions, self.transactions + "-dlq", self.labels))  # type: ignore[return-value]


@pytest.fixture
def topics(make_settings: Callable[..., Settings], topic_names: Callable[[str], str]) -> Topics:
    return Topics(make_settings(), topic_names)


def ulb(path: Path, rows: int) -> Path:
    """A file of the ULB layout, one fraud in fifty, and every hundredth row spoilt."""
    rng = np.random.default_rng(7)
    frame = pd.DataFrame({"Time": np.sort(rng.integers(0, 172_800, rows)).astype(float)})
    frame = frame.join(pd.DataFrame(rng.normal(size=(rows, 28)), columns=[f"V{n}" for n in range(1, 29)]))
    frame["Amount"] = rng.gamma(1, 80, rows).round(2).astype(object)
    frame["Class"] = (np.arange(rows) % 50 == 7).astype(int)
    frame.loc[np.arange(rows) % 100 == 99, "Amount"] = "n/a?"
    path.write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    return path


def test_every_row_of_a_file_is_in_the_log_once_or_in_the_dead_letters(topics: Topics, tmp_path: Path) -> None:
    files = open_files(ulb(tmp_path / "creditcard.csv.gz", 3_000))
    bulk = topics.run(lambda f: replay_files(files, f, labels=LabelRule(), now=NOW, echo_rejects=False))

    transactions, dead, labels = topics.read()
    assert (len(transactions), len(dead)) == (2_970, 30)
    assert {header(r.headers, "dlq.row") for r in dead} == {str(n) for n in range(100, 3_001, 100)}
    events = Decoder(TransactionReceived).decode_many([r.value for r in transactions])
    numbers = {int(e.transaction_id.removeprefix("ulb-")) for e in events if isinstance(e, TransactionReceived)}
    assert numbers == {n for n in range(1, 3_001) if n % 100}
    assert {len(e.attributes) for e in events if isinstance(e, TransactionReceived)} == {28}
    assert len(labels) == bulk.counters.labels == 60
    for record in labels:
        label = Decoder(LabelReported).decode(record.value)
        assert label.reported_at - label.occurred_at == timedelta(days=7)


def test_a_users_transactions_and_labels_keep_their_order_and_partition(topics: Topics, tmp_path: Path) -> None:
    rows = 2_000
    frame = pd.DataFrame(
        {
            "TRANSACTION_ID": range(rows),
            "TX_DATETIME": pd.date_range("2018-04-01", periods=rows, freq="17min"),
            "CUSTOMER_ID": np.arange(rows) % 40,
            "TERMINAL_ID": np.arange(rows) % 90,
            "TX_AMOUNT": 1.5,
            "TX_FRAUD": (np.arange(rows) % 20 == 0).astype(int),
        }
    )
    frame.to_parquet(tmp_path / "h.parquet")
    files = open_files(tmp_path / "h.parquet")
    topics.run(lambda f: replay_files(files, f, labels=LabelRule(), now=NOW), history=True)

    transactions, dead, labels = topics.read()
    assert (len(transactions), len(dead), len(labels)) == (rows, 0, 100)
    latest: dict[bytes | None, int] = {}
    partition: dict[bytes | None, int] = {}
    for record in transactions:
        event = Decoder(TransactionReceived).decode(record.value)
        assert event.verdict is not None
        assert event.verdict.origin == "history"
        number = int(event.transaction_id.removeprefix("hb-"))
        assert latest.get(record.key, -1) < number
        latest[record.key] = number
        assert partition.setdefault(record.key, record.partition) == record.partition
    assert {record.key for record in labels} <= partition.keys()
    assert all(partition[record.key] == record.partition for record in labels), "equal keys, equal partition numbers"


def test_the_record_time_is_now_and_the_event_time_is_in_the_value(topics: Topics) -> None:
    before = time.time() * 1_000
    profile = Profile(seed=11, customers=100, terminals=200)
    bulk = topics.run(lambda f: simulate_days(Simulation(profile), f, days=9))

    transactions, _, labels = topics.read()
    assert len(transactions) == bulk.counters.transactions > 1_000
    assert len(labels) == bulk.counters.labels > 0
    assert min(record.timestamp_ms for record in transactions) >= before - 1_000
    assert Decoder(TransactionReceived).decode(transactions[0].value).occurred_at < datetime(2026, 1, 10, tzinfo=UTC)


def test_a_limit_ends_the_run_after_so_many_rows(topics: Topics, tmp_path: Path) -> None:
    files = open_files(ulb(tmp_path / "creditcard.csv.gz", 500))
    topics.run(lambda f: replay_files(files, f, labels=LabelRule(), now=NOW, limit=250, echo_rejects=False))
    transactions, dead, _ = topics.read()
    assert (len(transactions), len(dead)) == (248, 2)
