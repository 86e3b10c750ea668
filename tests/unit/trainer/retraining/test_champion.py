"""A challenger is compared with the model that really serves, or with none only where none does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from centinela.errors import DependencyUnavailable
from centinela.features.layout import FeatureLayout
from centinela.model.registry import CHAMPION, Registry
from centinela.settings import Settings
from centinela.testing.registry_store import FakeStore
from centinela_trainer.retraining.champion import Champion, score_champion
from tests.support.served_models import small_bundle

NOW, NAME = datetime(2026, 3, 1, tzinfo=UTC), "FraudDetector"
LAYOUT = FeatureLayout(("v1", "v2"))
ROWS = np.zeros((4, len(LAYOUT.names)))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = small_bundle(tmp_path_factory.mktemp("bundles") / "1", LAYOUT)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class World:
    """A registry in which version 1 serves."""

    def __init__(self, bundle: dict[str, bytes], folder: Path) -> None:
        self.store = FakeStore()
        self.registry = Registry(Settings(model_name=NAME), store=self.store)
        self._folder = folder
        self.first = self.store.add_version(NAME, NOW, bundle=bundle)
        self.registry.promote(self.first)

    def score(self, layout: FeatureLayout = LAYOUT) -> Champion | None:
        return score_champion(self.registry, ROWS[:, : len(layout.names)], layout, self._folder / "champion")


@pytest.fixture
def world(bundle: dict[str, bytes], tmp_path: Path) -> World:
    return World(bundle, tmp_path)


def test_the_champion_scores_the_rows(world: World) -> None:
    champion = world.score()
    assert champion is not None
    assert (champion.version, champion.fault, champion.withdrawn) == ("1", None, False)
    assert champion.scores is not None
    assert champion.scores.shape == (4,)


def test_without_any_promotion_there_is_none(tmp_path: Path) -> None:
    registry = Registry(Settings(model_name=NAME), store=FakeStore())
    assert score_champion(registry, ROWS, LAYOUT, tmp_path / "champion") is None


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda files: {}, "missing_file: manifest.json"),
        (
            lambda files: {name: data for name, data in files.items() if name != "golden.npz"},
            "missing_file: golden.npz",
        ),
        (lambda files: files | {"model.skops": b"!"}, "digest_mismatch"),
    ],
)
def test_one_registered_by_hand_that_cannot_be_loaded_is_a_fault(
    world: World, bundle: dict[str, bytes], spoil: Callable[[dict[str, bytes]], dict[str, bytes]], fault: str
) -> None:
    """The alias points to it, but the predictors refused it and serve version 1."""
    version = world.store.add_version(NAME, NOW, bundle=spoil(bundle))
    world.store.set_alias(NAME, CHAMPION, version)
    champion = world.score()
    assert champion is not None
    assert (champion.version, champion.scores) == (version, None)
    assert fault in (champion.fault or "")


def test_one_whose_alias_was_removed_still_serves_and_is_compared_with(world: World) -> None:
    world.store.delete_alias(NAME, CHAMPION)
    champion = world.score()
    assert champion is not None
    assert champion.scores is not None
    assert (champion.version, champion.withdrawn) == ("1", True)


def test_removing_the_alias_of_one_that_cannot_be_loaded_is_the_way_to_begin_again(world: World) -> None:
    broken = world.store.add_version(NAME, NOW)
    world.registry.promote(broken)
    world.store.delete_alias(NAME, CHAMPION)
    assert world.score() == Champion(broken, None, fault=None, withdrawn=True)


def test_one_that_needs_a_column_which_is_no_longer_served_is_no_fault(world: World) -> None:
    assert world.score(FeatureLayout(("v1",))) == Champion("1", None)


def test_a_registry_that_does_not_answer_is_waited_for(world: World) -> None:
    world.store.unavailable = True
    with pytest.raises(DependencyUnavailable):
        world.score()
