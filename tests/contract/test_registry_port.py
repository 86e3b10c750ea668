"""One suite for the registry on its fake store and on a real MLflow."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import httpx
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from centinela.errors import CentinelaError, DependencyUnavailable, ModelRejected, PromotionConflict
from centinela.model.bundle import MANIFEST, METADATA, verify
from centinela.model.export import ModelFacts, build_bundle
from centinela.model.registry import CHALLENGER, CHAMPION, NO_CHAMPION, Registry
from centinela.model.registry_store import UnknownVersion
from centinela.settings import Settings
from centinela.testing.clock import FixedClock
from centinela.testing.registry_store import FakeStore

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class World(Protocol):
    """A registry and the means to put versions into it."""

    registry: Registry

    def add_version(
        self,
        *,
        bundle: Mapping[str, bytes] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """A new version with *bundle* among the artifacts of its run."""


class FakeWorld:
    def __init__(self, settings: Settings) -> None:
        self._store, self._model = FakeStore(), settings.model_name
        self.registry = Registry(settings, store=self._store, clock=FixedClock(NOW))

    def add_version(
        self,
        *,
        bundle: Mapping[str, bytes] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        return self._store.add_version(self._model, NOW, bundle=bundle, metrics=metrics, tags=tags)


class MlflowWorld:
    def __init__(self, settings: Settings) -> None:
        self._http = httpx.Client(base_url=settings.mlflow_tracking_uri, timeout=30)
        self._model = settings.model_name
        self._experiment = self._post("experiments/create", name=f"registry-{self._model}")["experiment_id"]
        self._post("registered-models/create", name=self._model)
        self.registry = Registry(settings, clock=FixedClock(NOW))

    def add_version(
        self,
        *,
        bundle: Mapping[str, bytes] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        run = self._post("runs/create", experiment_id=self._experiment)["run"]["info"]
        folder = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
        for name, data in (bundle or {}).items():
            self._http.put(
                f"/api/2.0/mlflow-artifacts/artifacts/{folder}/bundle/{name}", content=data
            ).raise_for_status()
        for key, value in (metrics or {}).items():
            self._post("runs/log-metric", run_id=run["run_id"], key=key, value=value, timestamp=0)
        version = self._post(
            "model-versions/create",
            name=self._model,
            source=f"{run['artifact_uri']}/bundle",
            run_id=run["run_id"],
            tags=[{"key": key, "value": value} for key, value in (tags or {}).items()],
        )
        return str(version["model_version"]["version"])

    def _post(self, path: str, **body: object) -> dict[str, Any]:
        response = self._http.post(f"/api/2.0/mlflow/{path}", json=body)
        response.raise_for_status()
        return dict(response.json())


@pytest.fixture(params=[FakeWorld, MlflowWorld])
def world(request: pytest.FixtureRequest, make_settings: Callable[..., Settings], unique: str) -> World:
    kind: type[FakeWorld] | type[MlflowWorld] = request.param
    return kind(make_settings(kafka=False, mlflow=kind is MlflowWorld, model_name=f"Detector-{unique}"))


@pytest.fixture(scope="module")
def bundle_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    rng = np.random.default_rng(7)
    matrix = rng.normal(size=(800, 3))
    model = HistGradientBoostingClassifier(max_iter=5, early_stopping=False).fit(matrix, (matrix[:, 0] > 0).astype(int))
    dest = tmp_path_factory.mktemp("bundles") / "one"
    build_bundle(
        model,
        matrix[:600],
        matrix[600:],
        ModelFacts(
            model_name="Detector",
            model_kind="hgb",
            layout_id="v1:a,b",
            feature_names=("a", "b", "c"),
            threshold=0.5,
            review_threshold=0.3,
            average_precision=0.9,
            dataset_digest="0" * 32,
            request_id="r-1",
            code_commit="f" * 40,
            created_at=NOW,
            metrics={"average_precision": 0.9},
        ),
        dest,
    )
    return {path.name: path.read_bytes() for path in dest.iterdir()}


def test_a_model_that_was_never_registered_has_no_versions_and_no_champion(
    make_settings: Callable[..., Settings],
    unique: str,
) -> None:
    settings = make_settings(kafka=False, mlflow=True, model_name=f"Nobody-{unique}")
    for registry in (Registry(settings), Registry(settings, store=FakeStore())):
        assert registry.version_of(CHAMPION) is None
        assert registry.versions() == []
        assert registry.history() == ()


def test_one_version_leads_to_the_run_that_made_it(world: World) -> None:
    world.add_version()
    two = world.add_version(tags={"dataset_digest": "md5:1"}, metrics={"average_precision": 0.5})
    world.registry.set_alias(CHALLENGER, two)

    found = world.registry.version(two)

    assert found == world.registry.versions()[0]
    assert (found.aliases, dict(found.tags)["dataset_digest"], dict(found.metrics)) == (
        (CHALLENGER,),
        "md5:1",
        {"average_precision": 0.5},
    )
    run = world.registry.run(found.run_id or "")
    assert run is not None
    assert (run.run_id, run.started_at.tzinfo) == (found.run_id, UTC)
    assert world.registry.run("0" * 32) is None
    with pytest.raises(UnknownVersion, match="no version 77"):
        world.registry.version("77")


def test_an_alias_moves_and_others_stay(world: World) -> None:
    one, two = world.add_version(), world.add_version()
    world.registry.set_alias(CHAMPION, one)
    world.registry.set_alias(CHALLENGER, two)

    assert world.registry.aliases() == {CHAMPION: one, CHALLENGER: two}

    world.registry.set_alias(CHALLENGER, one)
    assert world.registry.aliases() == {CHAMPION: one, CHALLENGER: one}


def test_a_promotion_names_the_champion_before_and_is_remembered(world: World) -> None:
    one, two = world.add_version(), world.add_version()

    assert world.registry.promote(one, NO_CHAMPION, reason="first") is None
    assert world.registry.promote(two, one, reason="better on late labels") == one

    assert world.registry.version_of(CHAMPION) == two
    assert [(p.kind, p.version, p.previous, p.at, p.reason) for p in world.registry.history()] == [
        ("promote", one, None, NOW, "first"),
        ("promote", two, one, NOW, "better on late labels"),
    ]


def test_a_promotion_that_expected_another_champion_changes_nothing(world: World) -> None:
    one, two = world.add_version(), world.add_version()
    world.registry.promote(one)

    for expected in (two, NO_CHAMPION):
        with pytest.raises(PromotionConflict, match=f"is {one}, not {expected}"):
            world.registry.promote(two, expected)

    assert world.registry.version_of(CHAMPION) == one
    assert len(world.registry.history()) == 1


def test_a_challenger_that_is_promoted_is_no_challenger_any_more(world: World) -> None:
    one, two = world.add_version(), world.add_version()
    world.registry.promote(one)
    world.registry.set_alias(CHALLENGER, two)

    world.registry.promote(two)

    assert world.registry.aliases() == {CHAMPION: two}


def test_the_old_stages_are_readable_as_tags(world: World) -> None:
    one, two, three = world.add_version(tags={"request_id": "r-1"}), world.add_version(), world.add_version()
    world.registry.promote(one)
    world.registry.promote(two)
    world.registry.set_alias(CHALLENGER, three)

    versions = {v.version: v for v in world.registry.versions()}
    assert {number: v.tags["stage"] for number, v in versions.items()} == {
        one: "Archived",
        two: "Production",
        three: "Staging",
    }
    assert versions[one].tags["request_id"] == "r-1"


def test_one_version_is_in_production_whoever_set_the_alias(world: World) -> None:
    """A champion that was set past the registry, in MLflow itself, has no tag; the one before keeps its own."""
    one, two, three = world.add_version(), world.add_version(), world.add_version()
    world.registry.promote(one)
    world.registry._store.set_alias(world.registry.model_name, CHAMPION, two)
    world.registry.promote(three)
    stages = {v.version: v.tags.get("stage") for v in world.registry.versions()}
    assert (stages[one], stages[three]) == ("Archived", "Production")
    assert list(stages.values()).count("Production") == 1

    world.registry._store.set_alias(world.registry.model_name, CHAMPION, one)
    world.registry.restage()
    stages = {v.version: v.tags.get("stage") for v in world.registry.versions()}
    assert (stages[one], stages[three]) == ("Production", "Archived")


def test_a_challenger_that_was_replaced_or_rolled_back_over_is_archived(world: World) -> None:
    one, two, three = world.add_version(), world.add_version(), world.add_version()
    world.registry.promote(one)
    world.registry.set_alias(CHALLENGER, two)
    world.registry.set_alias(CHALLENGER, three)
    world.registry.promote(three)
    world.registry.rollback()
    stages = {v.version: v.tags.get("stage") for v in world.registry.versions()}
    assert stages == {one: "Production", two: "Archived", three: "Archived"}


def test_versions_come_newest_first_with_aliases_metrics_and_age(world: World) -> None:
    one, two = world.add_version(metrics={"average_precision": 0.81}), world.add_version()
    world.registry.promote(one)

    newest, oldest = world.registry.versions()
    assert (newest.version, newest.aliases, dict(newest.metrics)) == (two, (), {})
    assert (oldest.version, oldest.aliases, dict(oldest.metrics)) == (one, (CHAMPION,), {"average_precision": 0.81})
    assert oldest.run_id
    assert oldest.created_at.tzinfo is not None
    assert [v.version for v in world.registry.versions(limit=1)] == [two]


def test_rollbacks_undo_promotions_one_by_one_until_none_is_left(world: World) -> None:
    versions = [world.add_version() for _ in range(3)]
    for version in versions:
        world.registry.promote(version)

    assert world.registry.rollback(reason="false alarms") == versions[1]
    assert world.registry.rollback() == versions[0]
    assert world.registry.version_of(CHAMPION) == versions[0]
    with pytest.raises(PromotionConflict, match="no earlier champion"):
        world.registry.rollback()

    assert [p.kind for p in world.registry.history()] == ["promote"] * 3 + ["rollback"] * 2


def test_a_rollback_that_expected_another_champion_changes_nothing(world: World) -> None:
    one, two = world.add_version(), world.add_version()
    world.registry.promote(one)
    world.registry.promote(two)

    with pytest.raises(PromotionConflict, match=f"is {two}, not {one}"):
        world.registry.rollback(one)
    assert world.registry.version_of(CHAMPION) == two


@pytest.mark.parametrize("alias", [CHAMPION, CHALLENGER])
def test_an_alias_cannot_point_to_a_version_that_is_not_there(world: World, alias: str) -> None:
    world.add_version()
    with pytest.raises(UnknownVersion, match="no version 9000"):
        world.registry.set_alias(alias, "9000")
    assert world.registry.aliases() == {}
    assert world.registry.history() == ()


def test_a_bundle_arrives_whole_with_its_version_in_the_metadata(
    world: World,
    bundle_files: dict[str, bytes],
    tmp_path: Path,
) -> None:
    world.add_version()
    version = world.add_version(bundle=bundle_files)

    got = world.registry.download(version, tmp_path / "models" / version)

    assert got == tmp_path / "models" / version
    assert {path.name: path.read_bytes() for path in got.iterdir() if path.name != METADATA} == bundle_files
    assert verify(got).model_kind == "hgb"
    metadata = json.loads((got / METADATA).read_text())
    assert (metadata["version"], metadata["model_kind"], metadata["metrics"]) == (
        version,
        "hgb",
        {"average_precision": 0.9},
    )
    assert datetime.fromisoformat(metadata["created_at"]) == NOW


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda files: {name: data for name, data in files.items() if name != MANIFEST}, "missing_file: manifest.json"),
        (
            lambda files: {name: data for name, data in files.items() if name != "model.skops"},
            "missing_file: model.skops",
        ),
        (lambda files: files | {"model.skops": files["model.skops"] + b"!"}, "digest_mismatch: model.skops"),
        (lambda files: {}, "missing_file: manifest.json"),
    ],
)
def test_a_damaged_bundle_is_refused_and_leaves_nothing_behind(
    world: World,
    bundle_files: dict[str, bytes],
    tmp_path: Path,
    change: Callable[[dict[str, bytes]], dict[str, bytes]],
    reason: str,
) -> None:
    version = world.add_version(bundle=change(dict(bundle_files)))
    with pytest.raises(ModelRejected, match=reason):
        world.registry.download(version, tmp_path / "models" / version)
    assert list((tmp_path / "models").iterdir()) == []


def test_the_bundle_of_a_version_that_is_not_there_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="missing_version"):
        world.registry.download("9000", tmp_path / "9000")


def test_a_version_that_the_registry_cannot_read_is_refused(world: World, tmp_path: Path) -> None:
    """An alias is text: MLflow answers 400 to a version that is not a number, and that must not end who follows it."""
    world.add_version()
    with pytest.raises(ModelRejected, match=r"missing_version|not_downloadable"):
        world.registry.download("latest", tmp_path / "latest")


def test_an_artifact_that_goes_while_it_is_fetched_is_a_rejection(
    world: World, bundle_files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = world.add_version(bundle={name: data for name, data in bundle_files.items() if name != "model.skops"})
    store = world.registry._store
    monkeypatch.setattr(store, "list_artifacts", lambda run_id, folder: list(bundle_files))
    with pytest.raises((ModelRejected, DependencyUnavailable)):
        world.registry.download(version, tmp_path / version)
    assert list(tmp_path.iterdir()) == []


def test_a_download_never_overwrites(world: World, bundle_files: dict[str, bytes], tmp_path: Path) -> None:
    version = world.add_version(bundle=bundle_files)
    with pytest.raises(FileExistsError):
        world.registry.download(version, tmp_path)


def test_a_server_that_is_away_is_a_dependency_that_is_away(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    unavailable = FakeStore()
    unavailable.unavailable = True
    settings = make_settings(kafka=False, mlflow_tracking_uri="http://127.0.0.1:9")
    for registry in (Registry(settings), Registry(settings, store=unavailable)):
        calls: list[Callable[[Registry], object]] = [
            lambda r: r.version_of(CHAMPION),
            lambda r: r.versions(),
            lambda r: r.promote("1"),
            lambda r: r.rollback(),
            lambda r: r.download("1", tmp_path / "1"),
        ]
        for call in calls:
            with pytest.raises(DependencyUnavailable) as caught:
                call(registry)
            assert caught.value.dependency == "mlflow"


def test_a_tracking_uri_that_is_no_server_is_refused_at_once(make_settings: Callable[..., Settings]) -> None:
    with pytest.raises(CentinelaError, match="http://host:port"):
        Registry(make_settings(kafka=False, mlflow_tracking_uri="sqlite:///mlflow.db"))
