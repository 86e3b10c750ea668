"""A retrain request through a real Kafka, a real child process and a real MLflow."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest

from centinela import topics
from centinela.codec import ModelEventDecoder
from centinela.errors import DependencyUnavailable
from centinela.events import LabelReported, RetrainRequested, TrainingCompleted, TransactionScored, encode
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.kafka.admin import TopicSpec, specifications
from centinela.kafka.connect import consumer, producer, topic_admin
from centinela.kafka.port import Outgoing, TopicPartition
from centinela.kafka.reader import open_table
from centinela.model.registry import CHALLENGER, CHAMPION, Registry
from centinela.model.scorer import Scorer
from centinela.telemetry.health import Health
from centinela_trainer import bootstrap
from centinela_trainer.child import EX_TEMPFAIL, start_child
from centinela_trainer.columns import Row, label_tables, verdict_tables
from centinela_trainer.settings import TrainerSettings
from centinela_trainer.snapshot import SnapshotStore
from centinela_trainer.snapshot_format import folder_digest
from centinela_trainer.store import ArchiveStore
from centinela_trainer.tracking import Tracking

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
    """Twenty days of verdicts and labels: fraud where the amount is high and, from day twelve on, where a card is busy."""
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
        ids = {"transaction_id": f"t{number:05d}", "user_id": f"u{random.integers(300)}", "occurred_at": occurred}
        verdicts.append(Row("predictions", 0, number, TransactionScored(
            **ids, amount=float(matrix[number, amount]), decision="approve", variant="none", origin="history", feature_set=LAYOUT.id,
            features=features, scored_at=occurred)))
        if fraud[number]:
            labels.append(Row("labels", 0, number, LabelReported(**ids, is_fraud=True, reported_at=occurred + timedelta(days=4))))
    store.write("predictions", TopicPartition("predictions", 0), 0, ROWS - 1, verdict_tables(verdicts))
    store.write("labels", TopicPartition("labels", 0), 0, ROWS - 1, label_tables(labels))


class World:
    """Topics, a model and an experiment that only this test uses; an archive that holds all that the log does."""

    def __init__(self, settings: TrainerSettings, unique: str) -> None:
        self.settings, self.name = settings, f"trainer-{unique}"
        self.requests, self.events = f"retrain-requests-{unique}", f"model-events-{unique}"
        admin = topic_admin(settings)
        try:
            admin.create([TopicSpec(name, 1, 1, {}) for name in (self.requests, self.events, f"{self.requests}-dlq")])
            admin.create(specifications(settings, [topics.PREDICTIONS, topics.LABELS], []))
        finally:
            admin.close()
        self.registry, self.tracking = Registry(settings), Tracking(settings)
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
        return RetrainRequested(request_id=name, model_name=self.settings.model_name, requested_by="drift",
                                as_of=START + timedelta(days=day), reason="a test")

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
        loop = bootstrap.trainer_loop(self.settings, health, stop, requests=self.requests, events=self.events, name=self.name)
        thread = threading.Thread(target=loop.run)
        thread.start()
        try:
            yield health
        finally:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()

    def answers(self, count: int, timeout_s: float = 120) -> list[TrainingCompleted]:
        """Wait for *count* answers on the topic."""
        table, decoder, deadline = open_table(self.settings, [self.events]), ModelEventDecoder(), time.monotonic() + timeout_s
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

    def runs(self) -> list[dict]:
        """All runs of the experiment, as MLflow's own API shows them."""
        base = f"{self.settings.mlflow_tracking_uri}/api/2.0/mlflow"
        experiment = httpx.get(f"{base}/experiments/get-by-name", params={"experiment_name": self.settings.experiment}).json()
        return httpx.post(f"{base}/runs/search", json={"experiment_ids": [experiment["experiment"]["experiment_id"]]}).json().get("runs", [])


@pytest.fixture
def world(make_settings: Callable[..., TrainerSettings], unique: str, tmp_path: Path) -> World:
    params = tmp_path / "params.yaml"
    params.write_text(PARAMS)
    settings = make_settings(TrainerSettings, mlflow=True, model_name=f"FraudDetector-{unique}", experiment=f"credit-card-fraud-{unique}",
                             params_path=params, archive_wait_s=20.0)
    return World(settings, unique)


def pairs(entries: list[dict]) -> dict[str, object]:
    return {entry["key"]: entry["value"] for entry in entries}


def test_requests_become_a_first_champion_then_a_better_one_and_the_same_request_trains_once(world: World, tmp_path: Path) -> None:
    first, second = world.request("first", 16), world.request("second", 20)
    with world.trainer():
        world.ask(first, first)
        one, again = world.answers(2)
        assert one == again
        assert (one.outcome, one.model_version) == ("promoted", "1")
        assert world.registry.aliases() == {CHAMPION: "1"}
        assert len(world.runs()) == 1

        world.ask(second)
        three = world.answers(3)[-1]
    assert (three.outcome, three.model_version) == ("promoted", "2"), three.reason
    assert three.average_precision > three.champion_average_precision
    assert world.registry.aliases() == {CHAMPION: "2"}

    run = next(run for run in world.runs() if run["info"]["run_id"] == three.run_id)
    assert (run["info"]["run_name"], run["info"]["status"]) == ("hgb_baseline", "FINISHED")
    params, metrics, tags = (pairs(run["data"][part]) for part in ("params", "metrics", "tags"))
    assert {"max_depth", "max_iter", "train_size", "test_size", "seed"} <= set(params)
    assert {"average_precision", "roc_auc", "accuracy", "f1_score", "precision", "recall", "card_precision_at_100",
            "champion_average_precision", "forward_average_precision", "recall_at_budget", "brier_score"} <= set(metrics)
    assert tags["request_id"] == "second"
    assert tags["dataset_digest"] == three.dataset_digest
    assert run["inputs"]["dataset_inputs"][0]["dataset"]["digest"] == three.dataset_digest
    snapshots = SnapshotStore(world.settings.snapshots_dir)
    assert snapshots.digests() == sorted([one.dataset_digest, three.dataset_digest])
    assert folder_digest(Path(tags["dataset_snapshot"])) == three.dataset_digest
    listed = httpx.get(f"{world.settings.mlflow_tracking_uri}/api/2.0/mlflow/artifacts/list", params={"run_id": three.run_id}).json()
    assert {"confusion_matrix.png", "pr_curve.png", "environment.json", "bundle"} <= {file["path"] for file in listed["files"]}

    newest = world.registry.versions()[0]
    assert (newest.version, newest.tags["request_id"], newest.tags["dataset_digest"]) == ("2", "second", three.dataset_digest)
    scorer = Scorer.load(world.registry.download("2", tmp_path / "bundle"), layout=LAYOUT)
    assert (scorer.manifest.request_id, scorer.manifest.dataset_digest) == ("second", three.dataset_digest)
    assert len(snapshots.read(three.dataset_digest)) == scorer.manifest.reference.rows
    assert "v1" not in scorer.manifest.feature_names
    scores = scorer.score(np.full((1, len(LAYOUT.names)), np.nan), LAYOUT)
    assert 0 <= scores[0] <= 1


def run_job(world: World, request: RetrainRequested, work: Path) -> TrainingCompleted:
    """What the child does, in this process."""
    work.mkdir()
    return bootstrap.training_job(world.settings, work).run(request)


def test_a_challenger_that_is_no_better_is_refused_and_not_registered(world: World, tmp_path: Path) -> None:
    assert run_job(world, world.request("first", 16), tmp_path / "a").outcome == "promoted"
    same = run_job(world, world.request("again", 16.001), tmp_path / "b")
    assert same.outcome == "refused"
    assert same.model_version is None
    assert "champion" in same.reason
    assert [version.version for version in world.registry.versions()] == ["1"]
    assert run_job(world, world.request("again", 16.001), tmp_path / "c") == same


def test_a_challenger_learned_from_features_that_no_stream_computes_is_refused_with_the_report(world: World, tmp_path: Path) -> None:
    world.settings.params_path.write_text(PARAMS.replace("max_mismatch_rate: 1", "max_mismatch_rate: 0.05"))
    answer = run_job(world, world.request("first", 16), tmp_path / "a")
    assert answer.outcome == "refused"
    assert "differs from the batch form" in answer.reason
    assert world.registry.versions() == []
    [run] = world.runs()
    assert pairs(run["data"]["metrics"])["skew_mismatch_rate"] > 0.5
    listed = httpx.get(f"{world.settings.mlflow_tracking_uri}/api/2.0/mlflow/artifacts/list", params={"run_id": answer.run_id}).json()
    assert "skew.json" in {file["path"] for file in listed["files"]}
    assert world.settings.skew_path.exists()


def test_too_little_data_is_refused_with_the_numbers(world: World, tmp_path: Path) -> None:
    answer = run_job(world, world.request("early", 7.5), tmp_path / "a")
    assert answer.outcome == "refused"
    assert "mature transactions" in answer.reason
    assert world.registry.versions() == []


def test_an_interrupted_run_is_marked_failed_and_training_starts_again(world: World, tmp_path: Path) -> None:
    left = world.tracking.start("hgb_baseline", {"request_id": "first"})
    answer = run_job(world, world.request("first", 16), tmp_path / "a")
    states = {run["info"]["run_id"]: run["info"]["status"] for run in world.runs()}
    assert states == {left: "FAILED", answer.run_id: "FINISHED"}
    assert answer.outcome == "promoted"


class DiesWhilePromoting(Registry):
    def promote(self, version: str, expect: str | None = None, *, reason: str = "") -> str | None:
        raise DependencyUnavailable("the registry went away", dependency="mlflow")


def test_a_crash_between_registration_and_promotion_is_finished_without_training_again(world: World, tmp_path: Path) -> None:
    request = world.request("first", 16)
    (tmp_path / "a").mkdir()
    job = bootstrap.training_job(world.settings, tmp_path / "a", registry=DiesWhilePromoting(world.settings))
    with pytest.raises(DependencyUnavailable):
        job.run(request)
    assert world.registry.aliases() == {CHALLENGER: "1"}
    answer = run_job(world, request, tmp_path / "b")
    assert (answer.outcome, answer.model_version) == ("promoted", "1")
    assert world.registry.aliases() == {CHAMPION: "1"}
    assert [run["info"]["status"] for run in world.runs()] == ["FINISHED"]


def test_a_champion_that_changed_meanwhile_is_not_overwritten(world: World, tmp_path: Path) -> None:
    class PromotedByHand(Registry):
        """Somebody promotes version 2 just before the challenger would be."""

        def promote(self, version: str, expect: str | None = None, *, reason: str = "") -> str | None:
            world.registry.promote("2", reason="by hand")
            return super().promote(version, expect, reason=reason)

    assert run_job(world, world.request("first", 16), tmp_path / "a").outcome == "promoted"
    run = world.runs()[0]["info"]
    httpx.post(f"{world.settings.mlflow_tracking_uri}/api/2.0/mlflow/model-versions/create",
               json={"name": world.settings.model_name, "source": run["artifact_uri"], "run_id": run["run_id"]}).raise_for_status()
    (tmp_path / "b").mkdir()
    job = bootstrap.training_job(world.settings, tmp_path / "b", registry=PromotedByHand(world.settings))
    answer = job.run(world.request("second", 20))
    assert (answer.outcome, answer.model_version) == ("challenger", "3")
    assert "not promoted" in answer.reason
    assert world.registry.aliases() == {CHAMPION: "2", CHALLENGER: "3"}


def test_the_child_says_that_mlflow_is_away_and_asks_to_be_started_again(world: World, tmp_path: Path) -> None:
    settings = world.settings.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:9"})
    request = tmp_path / "request.json"
    request.write_bytes(encode(world.request("first", 16)))
    child = start_child(settings)(request, tmp_path / "answer.json", tmp_path / "output.txt")
    assert child.wait(90) == EX_TEMPFAIL
    assert "MLflow" in (tmp_path / "output.txt").read_text()
    assert not (tmp_path / "answer.json").exists()


def test_an_archive_that_lags_is_waited_for(world: World) -> None:
    settings, topic = world.settings.model_copy(update={"archive_wait_s": 0.5}), world.requests
    world.ask(world.request("not archived yet", 16))
    with pytest.raises(DependencyUnavailable, match="archive did not reach"):
        bootstrap.await_archive(settings, [topic])
    world.store.save_offsets({TopicPartition(topic, 0): 1})
    bootstrap.await_archive(settings, [topic])


def test_the_child_ends_when_its_parent_is_gone(world: World, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = world.settings.model_copy(update={"mlflow_tracking_uri": f"http://127.0.0.1:{silent.getsockname()[1]}"})
        request = tmp_path / "request.json"
        request.write_bytes(encode(world.request("first", 16)))
        child = start_child(settings)(request, tmp_path / "answer.json", tmp_path / "output.txt")
        assert isinstance(child, subprocess.Popen)
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(60) == 1
    assert (tmp_path / "output.txt").read_text() == ""
