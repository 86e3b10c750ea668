"""A verdict is traced back: from the archive first, else from the log, to version, run, training set and commit."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from centinela.commands.main import build_app
from centinela.errors import DependencyUnavailable
from centinela.events import TrainingCompleted, TransactionScored, encode
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.kafka.connect import producer, topic_admin
from centinela.kafka.port import Outgoing, TopicPartition
from centinela.kafka.topic_admin import TopicSpec
from centinela.model.registry_store import UnknownVersion
from centinela_trainer.archive.arrow_tables import Row, verdict_tables
from centinela_trainer.archive.store import ArchiveStore
from centinela_trainer.commands.lineage import as_object, explain
from centinela_trainer.mlflow_tracking import Tracking
from centinela_trainer.settings import TrainerSettings
from centinela_trainer.snapshots.lineage import UnknownTransaction
from centinela_trainer.snapshots.push import SnapshotRemote
from centinela_trainer.snapshots.store import SnapshotStore
from centinela_trainer.training.dataset import Dataset

LAYOUT = FeatureLayout()
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COMMIT = "c" * 40


def verdict(name: str, version: str | None, *, score: float | None = 0.25) -> TransactionScored:
    return TransactionScored(
        transaction_id=name,
        user_id="u1",
        occurred_at=NOW,
        amount=12.5,
        decision="approve",
        variant="champion" if version else "none",
        origin="stream" if version else "history",
        feature_set=LAYOUT.id,
        features=pack_rows(np.zeros((1, len(LAYOUT.names))))[0],
        scored_at=NOW + timedelta(seconds=1),
        score=score,
        threshold=0.5 if version else None,
        model_version=version,
    )


class World:
    """An archive with two verdicts, a log with a third, and a version of a model whose run names its training set."""

    def __init__(self, settings: TrainerSettings, topic: str) -> None:
        self.settings, self.topic = settings, topic
        rows = 50
        self.snapshot = SnapshotStore(settings.snapshots_dir).write(
            Dataset(
                names=("amount",),
                matrix=np.ones((rows, 1)),
                is_fraud=np.arange(rows) % 9 == 0,
                transaction_ids=np.array([f"t{n:02d}" for n in range(rows)], dtype=object),
                cards=np.full(rows, None, dtype=object),
                times_us=np.arange(rows),
                mature_until_us=rows,
            )
        )
        tracking = Tracking(settings)
        self.run_id = tracking.start(
            "hgb_baseline",
            {
                "request_id": "r-1",
                "model_kind": "hgb",
                "code_commit": COMMIT,
                "dataset_digest": self.snapshot.digest,
                "dataset_snapshot": str(self.snapshot.path),
            },
        )
        self.version = self._register(
            {"request_id": "r-1", "dataset_digest": self.snapshot.digest, "code_commit": COMMIT, "model_kind": "hgb"}
        )
        tracking.complete(
            self.run_id,
            TrainingCompleted(
                model_name=settings.model_name,
                request_id="r-1",
                outcome="challenger",
                reason="a test",
                completed_at=NOW,
            ),
        )

        events = [
            verdict("archived", self.version),
            verdict("loaded", None, score=None),
            verdict("lost-model", "77"),
            verdict("in-log", self.version),
        ]
        admin = topic_admin(settings)
        try:
            admin.create([TopicSpec(topic, 1, 1, {})])
        finally:
            admin.close()
        sender = producer(settings)
        try:
            for event in events:
                sender.send(Outgoing(topic, encode(event), b"u1", partition=0))
            sender.flush(20)
        finally:
            sender.close()
        store = ArchiveStore(settings.archive_dir)
        partition = TopicPartition(topic, 0)
        store.write(
            "predictions",
            partition,
            0,
            2,
            verdict_tables([Row(topic, 0, offset, event) for offset, event in enumerate(events[:3])]),
        )
        store.save_offsets({partition: 3})

    def _register(self, tags: dict[str, str]) -> str:
        """A version without a model behind it."""
        with httpx.Client(base_url=f"{self.settings.mlflow_tracking_uri}/api/2.0/mlflow", timeout=60) as http:
            http.post("/registered-models/create", json={"name": self.settings.model_name}).raise_for_status()
            uri = http.get("/runs/get", params={"run_id": self.run_id}).json()["run"]["info"]["artifact_uri"]
            version = http.post(
                "/model-versions/create",
                json={
                    "name": self.settings.model_name,
                    "source": f"{uri}/bundle",
                    "run_id": self.run_id,
                    "tags": [{"key": key, "value": value} for key, value in tags.items()],
                },
            )
            version.raise_for_status()
            return str(version.json()["model_version"]["version"])


@pytest.fixture
def world(make_settings: Callable[..., TrainerSettings], unique: str) -> World:
    settings = make_settings(
        TrainerSettings, mlflow=True, model_name=f"Traced-{unique}", experiment=f"lineage-{unique}"
    )
    return World(settings, f"predictions-{unique}")


def test_a_verdict_leads_to_version_run_training_set_and_commit_wherever_it_stands(world: World) -> None:
    for name, place in (("archived", f"archive, {world.topic}[0]@0, "), ("in-log", f"log, {world.topic}[0]@3")):
        found, trained = explain(world.settings, name, world.topic)
        assert found.place.startswith(place)
        assert (found.facts["decision"], found.facts["score"], found.facts["occurred_at"]) == ("approve", 0.25, NOW)
        assert trained is not None
        assert (trained.version, trained.model_kind, trained.run_id, trained.run_name, trained.run_status) == (
            world.version,
            "hgb",
            world.run_id,
            "hgb_baseline",
            "FINISHED",
        )
        assert (trained.dataset_digest, trained.dataset_at, trained.code_commit) == (
            world.snapshot.digest,
            str(world.snapshot.path),
            COMMIT,
        )
        assert (
            json.loads(json.dumps(as_object(world.settings, found, trained), default=str))["model"]["request_id"]
            == "r-1"
        )

    _, nobody = explain(world.settings, "loaded", world.topic)
    assert nobody is None

    with pytest.raises(UnknownTransaction, match="no verdict on never-sent: neither in the archive"):
        explain(world.settings, "never-sent", world.topic)
    with pytest.raises(UnknownVersion, match="no version 77: it was deleted"):
        explain(world.settings, "lost-model", world.topic)


def test_a_training_set_that_is_gone_here_is_found_on_the_remote_or_said_to_be_nowhere(
    world: World, tmp_path: Path
) -> None:
    remote = tmp_path / "remote"
    SnapshotRemote(str(remote)).push(SnapshotStore(world.settings.snapshots_dir), world.snapshot.digest)
    world.snapshot.path.rename(tmp_path / "moved")
    assert explain(world.settings, "archived", world.topic)[1].dataset_at is None  # type: ignore[union-attr]
    settings = world.settings.model_copy(update={"snapshot_remote": str(remote)})
    assert explain(settings, "archived", world.topic)[1].dataset_at == (  # type: ignore[union-attr]
        f"{remote} ({world.snapshot.digest.removeprefix('md5:')}.dir)"
    )


def test_the_archive_answers_while_kafka_is_away_and_the_error_names_what_is_missing(world: World) -> None:
    settings = world.settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:9"})
    assert explain(settings, "archived", world.topic)[1] is not None
    with pytest.raises(
        DependencyUnavailable, match=r"in-log is not in the archive under .*, and the log cannot be read"
    ):
        explain(settings, "in-log", world.topic)


def test_the_command_prints_people_a_line_each_and_programs_one_object(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("kafka_bootstrap_servers", "mlflow_tracking_uri", "data_dir", "model_name", "experiment"):
        monkeypatch.setenv(f"CENTINELA_{name.upper()}", str(getattr(world.settings, name)))
    command, app = CliRunner(), build_app({"lineage"})
    shown = command.invoke(app, ["lineage", "archived"])
    assert shown.exit_code == 0, shown.output
    for text in (
        "approve, score 0.2500 against 0.5",
        f"version {world.version}, hgb",
        world.run_id,
        world.snapshot.digest,
        COMMIT,
    ):
        assert text in shown.output
    as_json = json.loads(command.invoke(app, ["lineage", "archived", "--json"]).output)
    assert as_json["model"]["dataset_digest"] == world.snapshot.digest
    assert as_json["verdict"]["occurred_at"] == "2026-03-01T12:00:00Z"
