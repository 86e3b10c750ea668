"""A retrain request through a real Kafka, a real child process and a real MLflow."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from centinela.errors import DependencyUnavailable
from centinela.events import RetrainRequested, TrainingCompleted, encode
from centinela.kafka.port import TopicPartition
from centinela.model.registry import CHALLENGER, CHAMPION, Registry
from centinela.model.scorer import Scorer
from centinela_trainer.archive.bootstrap import await_archive
from centinela_trainer.retraining.bootstrap import training_job
from centinela_trainer.retraining.child_runner import EX_TEMPFAIL, start_child
from centinela_trainer.settings import TrainerSettings
from centinela_trainer.snapshots.format import folder_digest
from centinela_trainer.snapshots.store import SnapshotStore
from tests.support.trainer_world import LAYOUT, PARAMS, World, world_of


@pytest.fixture
def world(make_settings: Callable[..., TrainerSettings], unique: str, tmp_path: Path) -> World:
    return world_of(make_settings, unique, tmp_path)


def pairs(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {entry["key"]: entry["value"] for entry in entries}


def test_requests_become_a_first_champion_then_a_better_one_and_the_same_request_trains_once(
    world: World, tmp_path: Path
) -> None:
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
    assert three.average_precision is not None
    assert three.champion_average_precision is not None
    assert three.average_precision > three.champion_average_precision
    assert world.registry.aliases() == {CHAMPION: "2"}

    run = next(run for run in world.runs() if run["info"]["run_id"] == three.run_id)
    assert (run["info"]["run_name"], run["info"]["status"]) == ("hgb_baseline", "FINISHED")
    params, metrics, tags = (pairs(run["data"][part]) for part in ("params", "metrics", "tags"))
    assert {"max_depth", "max_iter", "train_size", "test_size", "seed"} <= set(params)
    assert {
        "average_precision",
        "roc_auc",
        "accuracy",
        "f1_score",
        "precision",
        "recall",
        "card_precision_at_100",
        "champion_average_precision",
        "forward_average_precision",
        "recall_at_budget",
        "brier_score",
    } <= set(metrics)
    assert tags["request_id"] == "second"
    assert tags["dataset_digest"] == three.dataset_digest
    assert run["inputs"]["dataset_inputs"][0]["dataset"]["digest"] == three.dataset_digest
    snapshots = SnapshotStore(world.settings.snapshots_dir)
    assert snapshots.digests() == sorted(str(event.dataset_digest) for event in (one, three))
    assert folder_digest(Path(tags["dataset_snapshot"])) == three.dataset_digest
    listed = httpx.get(
        f"{world.settings.mlflow_tracking_uri}/api/2.0/mlflow/artifacts/list", params={"run_id": three.run_id}
    ).json()
    assert {"confusion_matrix.png", "pr_curve.png", "environment.json", "bundle"} <= {
        file["path"] for file in listed["files"]
    }

    newest = world.registry.versions()[0]
    assert (newest.version, newest.tags["request_id"], newest.tags["dataset_digest"]) == (
        "2",
        "second",
        three.dataset_digest,
    )
    scorer = Scorer.load(world.registry.download("2", tmp_path / "bundle"), layout=LAYOUT)
    assert (scorer.manifest.request_id, scorer.manifest.dataset_digest) == ("second", three.dataset_digest)
    assert len(snapshots.read(three.dataset_digest)) == scorer.manifest.reference.rows
    assert "v1" not in scorer.manifest.feature_names
    scores = scorer.score(np.full((1, len(LAYOUT.names)), np.nan), LAYOUT)
    assert 0 <= scores[0] <= 1


def run_job(world: World, request: RetrainRequested, work: Path) -> TrainingCompleted:
    """What the child does, in this process."""
    work.mkdir()
    return training_job(world.settings, work).run(request)


def test_a_challenger_that_is_no_better_is_refused_and_not_registered(world: World, tmp_path: Path) -> None:
    assert run_job(world, world.request("first", 16), tmp_path / "a").outcome == "promoted"
    same = run_job(world, world.request("again", 16.001), tmp_path / "b")
    assert same.outcome == "refused"
    assert same.model_version is None
    assert "champion" in same.reason
    assert [version.version for version in world.registry.versions()] == ["1"]
    assert run_job(world, world.request("again", 16.001), tmp_path / "c") == same


def test_a_challenger_learned_from_features_that_no_stream_computes_is_refused_with_the_report(
    world: World, tmp_path: Path
) -> None:
    world.settings.params_path.write_text(PARAMS.replace("max_mismatch_rate: 1", "max_mismatch_rate: 0.05"))
    answer = run_job(world, world.request("first", 16), tmp_path / "a")
    assert answer.outcome == "refused"
    assert "differs from the batch form" in answer.reason
    assert world.registry.versions() == []
    [run] = world.runs()
    assert pairs(run["data"]["metrics"])["skew_mismatch_rate"] > 0.5
    listed = httpx.get(
        f"{world.settings.mlflow_tracking_uri}/api/2.0/mlflow/artifacts/list", params={"run_id": answer.run_id}
    ).json()
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
        raise DependencyUnavailable("the registry stopped answering", dependency="mlflow")


def test_a_crash_between_registration_and_promotion_is_finished_without_training_again(
    world: World, tmp_path: Path
) -> None:
    request = world.request("first", 16)
    (tmp_path / "a").mkdir()
    job = training_job(world.settings, tmp_path / "a", registry=DiesWhilePromoting(world.settings))
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
    httpx.post(
        f"{world.settings.mlflow_tracking_uri}/api/2.0/mlflow/model-versions/create",
        json={"name": world.settings.model_name, "source": run["artifact_uri"], "run_id": run["run_id"]},
    ).raise_for_status()
    (tmp_path / "b").mkdir()
    job = training_job(world.settings, tmp_path / "b", registry=PromotedByHand(world.settings))
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
        await_archive(settings, [topic])
    world.store.save_offsets({TopicPartition(topic, 0): 1})
    await_archive(settings, [topic])


def test_the_child_ends_when_its_parent_is_gone(world: World, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = world.settings.model_copy(
            update={"mlflow_tracking_uri": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        )
        request = tmp_path / "request.json"
        request.write_bytes(encode(world.request("first", 16)))
        child = start_child(settings)(request, tmp_path / "answer.json", tmp_path / "output.txt")
        assert isinstance(child, subprocess.Popen)
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(60) == 1
    assert (tmp_path / "output.txt").read_text() == ""
