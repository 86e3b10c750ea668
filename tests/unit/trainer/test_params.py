"""The shipped ``params.yaml`` is valid, complete and equal to the defaults; what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from centinela_local.paths import CHECKOUT
from centinela_trainer.params import MODEL_KINDS, ModelKind, Params, ParamsError, flatten, load_params
from centinela_trainer.training.estimators import build_estimator

SHIPPED = CHECKOUT / "params.yaml"


def test_the_shipped_file_equals_the_defaults() -> None:
    assert load_params(SHIPPED) == Params()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("train: {hgb: {l2_regularization: 0}}", "l2_regularization"),
        ("train: {model_kind: no_such}", "model_kind"),
        ("trian: {}", "trian"),
        ("gate: {min_gain: much}", "min_gain"),
        ("a: [", "YAML"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=named):
        load_params(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"nowhere\.yaml"):
        load_params(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("kind", MODEL_KINDS)
def test_logged_params_are_those_of_the_kind_that_ran(kind: ModelKind) -> None:
    flat = flatten(Params(), kind)
    assert flat["model_kind"] == kind
    estimators = {each: set(msgspec.to_builtins(getattr(Params().train, each))) for each in MODEL_KINDS}
    assert estimators[kind] <= set(flat)
    assert not (set().union(*estimators.values()) - estimators[kind]) & set(flat)
    assert flat["gate.min_gain"] == Params().gate.min_gain
    assert all(not isinstance(value, dict) for value in flat.values())


def test_gradient_boosting_never_stops_early_on_a_random_split() -> None:
    assert build_estimator("hgb", Params()).get_params()["early_stopping"] is False  # type: ignore[attr-defined]
