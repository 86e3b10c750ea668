"""Labels with times that arithmetic cannot hold, on a real Kafka: the archive reads past them, and starts again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pyarrow.parquet as pq
from kafka import KafkaProducer  # noqa: TID251 stamps records as our own producers never do

from centinela.consuming.table_reader import open_table
from centinela.events import LabelReported, encode
from centinela.groups import ConsumerGroup
from centinela.kafka.connect import topic_admin
from centinela.kafka.topic_admin import TopicSpec
from centinela.liveness.health import Health
from centinela.topics import DLQ_SUFFIX, LABELS
from centinela_trainer.archive.bootstrap import archive_loop
from centinela_trainer.archive.store import ArchiveStore
from centinela_trainer.settings import TrainerSettings

NOW_S = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
TIME = "2026-02-20T12:00:00Z"
UNUSABLE = ("0001-01-01T00:00:00+23:59", "1969-12-31T23:59:59Z", "2999-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59")
STAMPS = (None, 0, NOW_S, NOW_S * 1_000, NOW_S * 1_000_000, NOW_S * 1_000_000_000)
"""Kafka's own time stamp as clients give it: left to the client, none, and in s, ms, us and ns."""


def test_the_archive_reads_past_times_that_cannot_be_held_at_every_start(
    make_settings: Callable[..., TrainerSettings], unique: str
) -> None:
    settings = make_settings(TrainerSettings, archive_flush_rows=1, dead_letter_max_share=1.0)
    predictions, labels = f"predictions-{unique}", f"labels-{unique}"
    admin = topic_admin(settings)
    admin.create([TopicSpec(labels, 1, 1, LABELS.config)])
    admin.create([TopicSpec(name, 1, 1, {}) for name in (predictions, labels + DLQ_SUFFIX)])
    admin.close()
    at = datetime.fromisoformat(TIME)
    label = encode(LabelReported(transaction_id="t", is_fraud=True, occurred_at=at, reported_at=at))
    bad = [label.replace(TIME.encode(), text.encode(), count) for text in UNUSABLE for count in (1, 2)]
    producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers)
    store = ArchiveStore(settings.archive_dir)
    for start in (1, 2):
        for value in bad:
            producer.send(labels, value)
        for stamp in STAMPS:
            producer.send(labels, label, timestamp_ms=stamp)
        producer.flush(30)
        loop = archive_loop(
            settings,
            store,
            Health(),
            threading.Event(),
            predictions=predictions,
            labels=labels,
            group=ConsumerGroup(f"archive-{unique}"),
        )
        deadline = time.monotonic() + 60
        while sum(pq.read_metadata(file).num_rows for file in store.files("labels")) < start * len(STAMPS):
            assert time.monotonic() < deadline
            loop.run_once()
        loop.close()
    producer.close()

    dead = open_table(settings, [labels + DLQ_SUFFIX])
    reasons = [dict(record.headers)["dlq.reason"].decode() for record in dead.read_to_end(30)]
    dead.close()
    assert reasons[: len(bad)] == ["time_before_1970"] * 4 + ["time_in_future"] * 4
    log = open_table(settings, [labels])
    stamps = [record.timestamp_ms for record in log.read_to_end(30)]
    log.close()
    assert all(abs(stamp / 1_000 - time.time()) < 3_600 for stamp in stamps)
