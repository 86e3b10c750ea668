"""The Feast role on a real Kafka and a real online store, and as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pytest

from centinela.events import TransactionScored, encode
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.featurestore.push import FeaturePusher
from centinela.featurestore.repository import apply, open_store
from centinela.groups import ConsumerGroup
from centinela.kafka.connect import consumer, topic_admin, transactional_producer
from centinela.kafka.port import Outgoing, TopicPartition
from centinela.kafka.topic_admin import TopicSpec
from centinela.liveness.health import Health
from centinela.testing.clock import FixedClock
from centinela_local.paths import CHECKOUT
from centinela_local.processes.ports import free_port
from centinela_predictor.feast.process import build_loop
from centinela_predictor.feast.settings import FeastSettings

REPO = CHECKOUT / "deploy" / "feast"
LAYOUT = FeatureLayout()
START = datetime(2026, 3, 1, tzinfo=UTC)
USERS, COUNT, SHARE = 20, 600, 250
COUNT_FEATURE = "user_transaction_features:transaction_count_7d"


def verdict(number: int, count: float) -> TransactionScored:
    vector = np.zeros((1, len(LAYOUT.names)))
    vector[0, LAYOUT.names.index("user_count_7d")] = count
    return TransactionScored(
        transaction_id=f"t{number}-{count}",
        user_id=f"u{number % USERS}",
        terminal_id="m1",
        occurred_at=START + timedelta(seconds=number),
        amount=1.0,
        decision="approve",
        variant="none",
        origin="history",
        feature_set=LAYOUT.id,
        features=pack_rows(vector)[0],
        scored_at=START,
    )


def test_after_a_kill_before_the_commit_the_store_holds_each_users_newest_committed_verdict(
    make_settings: Callable[..., FeastSettings], unique: str, tmp_path: Path
) -> None:
    settings = make_settings(FeastSettings, feast_repo=REPO, feast_batch=100)
    topic, group = f"predictions-{unique}", f"feast-{unique}"
    admin = topic_admin(settings)
    admin.create([TopicSpec(topic, 1, 1, {})])
    admin.close()
    producer, bystander = (
        transactional_producer(settings, transactional_id=f"writer-{unique}"),
        consumer(settings, group=None),
    )
    watcher = consumer(settings, group=group)
    producer.init()

    def write(numbers: range, *, count: float | None = None, abort: bool = False) -> None:
        producer.begin()
        producer.send_all(
            [
                Outgoing(topic, encode(verdict(n, n if count is None else count)), f"u{n % USERS}".encode())
                for n in numbers
            ]
        )
        if abort:
            producer.abort()
        else:
            producer.commit({}, bystander)

    write(range(COUNT))
    write(range(COUNT, COUNT + USERS), count=-1.0, abort=True)
    write(range(USERS), count=-2.0)

    store = open_store(REPO, settings.data_dir)
    apply(store, REPO, settings.data_dir)
    online = cast("Any", store._get_provider().online_store)
    online.clock = FixedClock(START + timedelta(hours=1))
    pusher = FeaturePusher(store)

    class Killed(Exception):
        """The process ends between the push and the commit."""

    class Deadly:
        pushed = 0

        def push(self, served: object) -> None:
            pusher.push(served)  # type: ignore[arg-type]
            Deadly.pushed += len(served)  # type: ignore[arg-type]
            if Deadly.pushed >= SHARE:
                raise Killed

    with pytest.raises(Killed):
        build_loop(settings, Deadly(), Health(), threading.Event(), topic=topic, group=ConsumerGroup(group)).run()

    stop = threading.Event()
    loop = build_loop(settings, pusher, Health(), stop, topic=topic, group=ConsumerGroup(group))
    thread = threading.Thread(target=loop.run)
    thread.start()
    partition = TopicPartition(topic, 0)
    try:
        deadline = time.monotonic() + 60
        while (watcher.committed([partition])[partition] or 0) < COUNT + USERS:
            assert time.monotonic() < deadline, "the offsets were never committed"
            threading.Event().wait(0.1)
    finally:
        stop.set()
        thread.join(30)
        for client in (bystander, watcher, producer):
            client.close()
    assert not thread.is_alive()

    answer = store.get_online_features(
        features=[COUNT_FEATURE], entity_rows=[{"user_id": f"u{n}"} for n in range(USERS)]
    ).to_dict()
    assert answer["transaction_count_7d"] == [float(COUNT - USERS + n) for n in range(USERS)]


def test_the_process_says_what_it_waits_for_and_ends_in_good_order(tmp_path: Path) -> None:
    port = free_port()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("CENTINELA_", "KAFKA_"))
    } | {
        "CENTINELA_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "CENTINELA_DATA_DIR": str(tmp_path),
        "CENTINELA_FEAST_PORT": str(port),
        "CENTINELA_FEAST_REPO": str(REPO),
        "CENTINELA_LOG_FORMAT": "json",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "centinela_predictor", "feast"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            deadline = time.monotonic() + 120
            waiting: dict[str, str] = {}
            while set(waiting) != {"kafka"} or "not there yet" in waiting["kafka"]:
                assert time.monotonic() < deadline, waiting
                assert process.poll() is None
                threading.Event().wait(0.1)
                try:
                    waiting = httpx.get(f"http://127.0.0.1:{port}/ready", timeout=20).json()["waiting_for"]
                except httpx.TransportError:
                    continue
            assert httpx.get(f"http://127.0.0.1:{port}/health", timeout=20).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            if process.poll() is None:
                process.kill()
    assert (tmp_path / "feast" / "registry.db").exists()
