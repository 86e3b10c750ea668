"""A trainer's world: topics, a model and an experiment that only one test uses, and an archive of twenty days."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from centinela import topics
from centinela.codec import ModelEventDecoder
from centinela.consuming.table_reader import open_table
from centinela.events import LabelReported, RetrainRequested, TrainingCompleted, TransactionScored, encode
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.groups import ConsumerGroup
from centinela.kafka.connect import consumer, producer, topic_admin
from centinela.kafka.port import Outgoing, TopicPartition
from centinela.kafka.topic_admin import TopicSpec, specifications
from centinela.liveness.health import Health
from centinela.model.registry import Registry
from centinela_trainer.archive.arrow_tables import Row, label_tables, verdict_tables
from centinela_trainer.archive.store import ArchiveStore
from centinela_trainer.mlflow_tracking import Tracking
from centinela_trainer.retraining.bootstrap import trainer_loop
from centinela_trainer.settings import TrainerSettings

LAYOUT = FeatureLayout(("v1",))
START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS, ROWS = 20, 4_000
PATTERN_FROM = 12.0
PARAMS = """
train: {min_rows: 200, min_frauds: 10, hgb: {max_iter: 30}}
evaluate: {test_days: 3}
threshold: {alert_budget: 0.08, review_budget: 0.12}
gate: {min_average_precision: 0.3, min_frauds: 8, max_alert_rate: 0.2}
skew: {max_mismatch_rate: 1}
"""
"""The features below are made up: no stream ever served them."""


def fill(store: ArchiveStore) -> None:
    """Twenty days of verdicts and labels: fraud where the amount is high and, from day twelve on, where a card is
    busy."""
    random = np.random.default_rng(1)
    days = np.sort(random.uniform(0, DAYS, ROWS))
    matrix = random.normal(size=(ROWS, len(LAYOUT.names)))
    amount, busy = LAYOUT.names.index("amount"), LAYOUT.names.index("user_count_1d")
    matrix[:, amount], matrix[:, busy], matrix[:, -1] = random.lognormal(3, 1, ROWS), random.poisson(2, ROWS), np.nan
    hijacked = (days >= PATTERN_FROM) & (random.random(ROWS) < 0.06)
    matrix[hijacked, busy] = 15
    fraud = hijacked | ((matrix[:, amount] > 100) & (random.random(ROWS) < 0.9))
    verdicts, labels = [], []
    for number, (day, features) in enumerate(zip(days, pack_rows(matrix), strict=True)):
        occurred = START + timedelta(days=float(day))
        ids: dict[str, Any] = {
            "transaction_id": f"t{number:05d}",
            "user_id": f"u{random.integers(300)}",
            "occurred_at": occurred,
        }
        verdicts.append(
            Row(
                "predictions",
                0,
                number,
                TransactionScored(
                    **ids,
                    amount=float(matrix[number, amount]),
                    decision="approve",
                    variant="none",
                    origin="history",
                    feature_set=LAYOUT.id,
                    features=features,
                    scored_at=occurred,
                ),
            )
        )
        if fraud[number]:
            labels.append(
                Row("labels", 0, number, LabelReported(**ids, is_fraud=True, reported_at=occurred + timedelta(days=4)))
            )
    store.write("predictions", TopicPartition("predictions", 0), 0, ROWS - 1, verdict_tables(verdicts))
    store.write("labels", TopicPartition("labels", 0), 0, ROWS - 1, label_tables(labels))


class World:
    """Topics, a model and an experiment that only this test uses; an archive that holds all that the log does."""

    def __init__(self, settings: TrainerSettings, unique: str) -> None:
        self.settings = settings
        self.name = f"trainer-{unique}"
        self.requests = f"retrain-requests-{unique}"
        self.events = f"model-events-{unique}"
        admin = topic_admin(settings)
        try:
            admin.create([TopicSpec(name, 1, 1, {}) for name in (self.requests, self.events, f"{self.requests}-dlq")])
            admin.create(specifications(settings, [topics.PREDICTIONS, topics.LABELS], []))
        finally:
            admin.close()
        self.registry = Registry(settings)
        self.tracking = Tracking(settings)
        self.store = ArchiveStore(settings.archive_dir)
        fill(self.store)
        self.hold_all()

    def hold_all(self) -> None:
        """Say that the archive holds what other tests may have written to the catalogue's topics."""
        reader = consumer(self.settings, group=None)
        try:
            partitions = reader.partitions_of(topics.PREDICTIONS.name) | reader.partitions_of(topics.LABELS.name)
            self.store.save_offsets(reader.end_offsets(partitions))
        finally:
            reader.close()

    def request(self, name: str, day: float) -> RetrainRequested:
        return RetrainRequested(
            request_id=name,
            model_name=self.settings.model_name,
            requested_by="drift",
            as_of=START + timedelta(days=day),
            reason="a test",
        )

    def ask(self, *requests: RetrainRequested) -> None:
        sender = producer(self.settings)
        try:
            for request in requests:
                sender.send(Outgoing(self.requests, encode(request), request.model_name.encode()))
            sender.flush(20)
        finally:
            sender.close()

    @contextmanager
    def trainer(self) -> Iterator[Health]:
        """The service at work."""
        health, stop = Health("kafka"), threading.Event()
        loop = trainer_loop(
            self.settings,
            health,
            stop,
            requests=self.requests,
            events=self.events,
            group=ConsumerGroup(self.name),
            transactional_id=self.name,
        )
        thread = threading.Thread(target=loop.run)
        thread.start()
        try:
            yield health
        finally:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()

    def answers(self, count: int, timeout_s: float = 300) -> list[TrainingCompleted]:
        """Wait for *count* answers on the topic."""
        table, decoder, deadline = (
            open_table(self.settings, [self.events]),
            ModelEventDecoder(),
            time.monotonic() + timeout_s,
        )
        found: list[TrainingCompleted] = []
        try:
            while len(found) < count:
                assert time.monotonic() < deadline, found
                for record in table.poll(0.3):
                    event = decoder.decode(record.value)
                    assert isinstance(event, TrainingCompleted)
                    found.append(event)
        finally:
            table.close()
        return found

    def runs(self) -> list[dict[str, Any]]:
        """All runs of the experiment, as MLflow's own API shows them."""
        base = f"{self.settings.mlflow_tracking_uri}/api/2.0/mlflow"
        experiment = httpx.get(
            f"{base}/experiments/get-by-name", params={"experiment_name": self.settings.experiment}
        ).json()
        runs: list[dict[str, Any]] = (
            httpx.post(f"{base}/runs/search", json={"experiment_ids": [experiment["experiment"]["experiment_id"]]})
            .json()
            .get("runs", [])
        )
        return runs


def world_of(make_settings: Callable[..., TrainerSettings], unique: str, folder: Path) -> World:
    """A world on the run's Kafka and MLflow, with parameters under which its small sets train and pass."""
    params = folder / "params.yaml"
    params.write_text(PARAMS)
    return World(
        make_settings(
            TrainerSettings,
            mlflow=True,
            model_name=f"FraudDetector-{unique}",
            experiment=f"credit-card-fraud-{unique}",
            params_path=params,
            archive_wait_s=20.0,
        ),
        unique,
    )
