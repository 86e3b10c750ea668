"""The archive on a real Kafka: killed and started again, every committed record stands once, aborted ones never."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet as pq

from centinela.consuming.loop import SinkLoop
from centinela.errors import DependencyUnavailable
from centinela.events import LabelReported, TransactionScored, encode
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.groups import ConsumerGroup
from centinela.kafka.connect import consumer, topic_admin, transactional_producer
from centinela.kafka.port import Outgoing
from centinela.kafka.topic_admin import TopicSpec
from centinela.liveness.health import Health
from centinela_trainer.archive.bootstrap import archive_loop
from centinela_trainer.archive.catch_up import wait_for_archive
from centinela_trainer.archive.store import ArchiveStore
from centinela_trainer.settings import TrainerSettings

LAYOUT = FeatureLayout()
START = datetime(2026, 3, 1, tzinfo=UTC)
VECTOR = pack_rows(np.zeros((1, len(LAYOUT.names))))[0]


def verdicts(topic: str, numbers: range) -> list[Outgoing]:
    return [
        Outgoing(
            topic,
            encode(
                TransactionScored(
                    transaction_id=f"t{n}",
                    user_id=f"u{n % 50}",
                    occurred_at=START + timedelta(minutes=n),
                    amount=1.0,
                    decision="approve",
                    variant="none",
                    origin="history",
                    feature_set=LAYOUT.id,
                    features=VECTOR,
                    scored_at=START,
                )
            ),
            f"u{n % 50}".encode(),
        )
        for n in numbers
    ]


def reports(topic: str, numbers: range) -> list[Outgoing]:
    return [
        Outgoing(
            topic,
            encode(
                LabelReported(
                    transaction_id=f"t{n}",
                    user_id=f"u{n % 50}",
                    is_fraud=True,
                    occurred_at=START,
                    reported_at=START + timedelta(days=5),
                )
            ),
            f"u{n % 50}".encode(),
        )
        for n in numbers
    ]


def test_what_was_committed_stands_once_after_a_kill_and_what_was_aborted_does_not(
    make_settings: Callable[..., TrainerSettings], unique: str
) -> None:
    settings = make_settings(TrainerSettings, archive_flush_rows=300, archive_flush_s=0.2, archive_wait_s=60.0)
    predictions, labels = f"predictions-{unique}", f"labels-{unique}"
    admin = topic_admin(settings)
    admin.create([TopicSpec(name, 2, 1, {}) for name in (predictions, labels)])
    admin.close()
    producer, bystander = (
        transactional_producer(settings, transactional_id=f"writer-{unique}"),
        consumer(settings, group=None),
    )
    producer.init()

    def write(records: list[Outgoing], *, abort: bool = False) -> None:
        producer.begin()
        producer.send_all(records)
        if abort:
            producer.abort()
        else:
            producer.commit({}, bystander)

    store = ArchiveStore(settings.archive_dir)

    def build(stop: threading.Event, health: Health) -> SinkLoop:
        return archive_loop(
            settings,
            store,
            health,
            stop,
            predictions=predictions,
            labels=labels,
            group=ConsumerGroup(f"archive-{unique}"),
        )

    write(verdicts(predictions, range(1_000)))
    write(verdicts(predictions, range(5_000, 5_400)), abort=True)
    killed = build(threading.Event(), Health())
    deadline = time.monotonic() + 60
    while len(store.files("predictions")) < 2:
        assert time.monotonic() < deadline
        killed.run_once()
    killed.close()

    write(verdicts(predictions, range(1_000, 1_500)) + reports(labels, range(200)))
    stop = threading.Event()
    loop = build(stop, Health())
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        wait_for_archive(bystander, store, [predictions, labels], timeout_s=60)
    except DependencyUnavailable as late:
        raise AssertionError("the archive never caught up") from late
    finally:
        stop.set()
        thread.join(30)
        bystander.close()
        producer.close()
    assert not thread.is_alive()

    for stream, count in (("predictions", 1_500), ("labels", 200)):
        ids = Counter(
            name
            for path in store.files(stream)
            for name in pq.ParquetFile(path).read(["transaction_id"])["transaction_id"].to_pylist()
        )
        assert ids == Counter(f"t{n}" for n in range(count))
