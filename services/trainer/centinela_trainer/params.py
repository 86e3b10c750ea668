"""``params.yaml`` as frozen structs: a wrong or unknown key is an error that names it."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta

from centinela.errors import CentinelaError

ModelKind = Literal["hgb", "rf", "lr"]
MODEL_KINDS: tuple[ModelKind, ...] = ("hgb", "rf", "lr")
Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


class ParamsError(CentinelaError):
    """``params.yaml`` is missing or holds a value that cannot be used."""


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class DataParams(_Strict, frozen=True):
    """What ``dvc repro`` works on: days of the simulator where ``path`` is a folder (its code), else the file ``path``.

    ``label_delay_days``: of a file, whose labels have no time of their own. ``separator``, ``decimal``, ``encoding``:
    of a CSV file, where they are not recognised.
    """

    path: str = "shared/centinela/datasets/simulator"
    mapping: str | None = None
    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    label_delay_days: Annotated[float, Meta(ge=0)] = 7
    maturity_days: Positive = 7
    start: date = date(2025, 1, 1)
    days: Count = 75
    customers: Count = 1_500
    terminals: Count = 3_000
    scenarios: tuple[str, ...] = ()


class HgbParams(_Strict, frozen=True):
    """HistGradientBoostingClassifier. Early stopping on a random split is off: it would look into the future."""

    max_iter: Count = 100
    learning_rate: Positive = 0.05
    max_leaf_nodes: Count | None = 15
    max_depth: Count | None = None
    min_samples_leaf: Count = 20
    l2_regularization: Annotated[float, Meta(ge=1)] = 1.0
    class_weight: Literal["balanced"] | None = None


class RfParams(_Strict, frozen=True):
    """RandomForestClassifier behind a median imputer."""

    n_estimators: Count = 100
    max_depth: Count | None = 16
    min_samples_split: Annotated[int, Meta(ge=2)] = 10
    min_samples_leaf: Count = 2
    max_samples: Annotated[float, Meta(gt=0, le=1)] = 0.25
    max_features: Literal["sqrt", "log2"] | float | None = "sqrt"
    class_weight: Literal["balanced", "balanced_subsample"] | None = None
    n_jobs: Count = 2


class LrParams(_Strict, frozen=True):
    """LogisticRegression behind a median imputer and a standard scaler."""

    C: Positive = 1.0
    max_iter: Count = 1000
    class_weight: Literal["balanced"] | None = None


class TrainParams(_Strict, frozen=True):
    """What is fitted, on how much."""

    model_kind: ModelKind = "hgb"
    features: Literal["served", "recomputed"] = "served"
    window_days: Positive = 21
    min_rows: Count = 500
    min_frauds: Count = 20
    refit: bool = True
    hgb: HgbParams = HgbParams()
    rf: RfParams = RfParams()
    lr: LrParams = LrParams()


class EvaluateParams(_Strict, frozen=True):
    """Where models are compared."""

    test_days: Positive = 3
    max_test_share: Annotated[float, Meta(gt=0, lt=1)] = 0.3
    folds: Count = 2
    gap_days: Annotated[float, Meta(ge=0)] = 0
    cards_per_day: Count = 100


class ThresholdParams(_Strict, frozen=True):
    """How the decision threshold is chosen."""

    policy: Literal["max_f1", "alert_budget"] = "max_f1"
    alert_budget: Annotated[float, Meta(gt=0, lt=1)] = 0.01
    review_budget: Annotated[float, Meta(gt=0, lt=1)] = 0.02


class GateParams(_Strict, frozen=True):
    """What a challenger must show."""

    min_average_precision: Share = 0.30
    min_gain: float = 0.02
    confidence: Share = 0.8
    min_frauds: Count = 15
    min_alert_rate: Share = 0.0002
    max_alert_rate: Share = 0.10


class SkewParams(_Strict, frozen=True):
    """How served features are compared with the batch form."""

    sample: Annotated[int, Meta(ge=0)] = 1_000
    recent_days: Positive = 7
    max_mismatch_rate: Share = 0.01

    def sampling(self, rows: int | None) -> SkewParams:
        """The same with another sample, where *rows* is given."""
        return self if rows is None else msgspec.structs.replace(self, sample=rows)


class RegisterParams(_Strict, frozen=True):
    """What follows a passed gate."""

    auto_promote: bool = True


class Params(_Strict, frozen=True):
    """The whole file. Defaults are those of the shipped ``params.yaml``."""

    seed: int = 7
    data: DataParams = DataParams()
    train: TrainParams = TrainParams()
    evaluate: EvaluateParams = EvaluateParams()
    threshold: ThresholdParams = ThresholdParams()
    gate: GateParams = GateParams()
    skew: SkewParams = SkewParams()
    register: RegisterParams = RegisterParams()


def load_params(path: Path) -> Params:
    """Read *path*.

    Raises:
        ParamsError: The file is missing, not YAML, or a value or key is wrong; the message names it.
    """
    try:
        return msgspec.convert(yaml.safe_load(path.read_text()) or {}, Params)
    except OSError as error:
        raise ParamsError(
            f"cannot read {path}: {error.strerror}; set CENTINELA_PARAMS_PATH to a params.yaml"
        ) from error
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from error
    except msgspec.ValidationError as error:
        raise ParamsError(f"{path}: {error}") from error


def flatten(params: Params, kind: ModelKind) -> dict[str, Any]:
    """The values that a run of *kind* used, by flat name: the estimator's own plain, the rest as ``section.name``."""
    tree: dict[str, Any] = msgspec.to_builtins(params)
    estimator = tree["train"][kind]
    flat = {"model_kind": kind, "seed": params.seed, **estimator}
    for section in ("train", "evaluate", "threshold", "gate", "skew", "register"):
        flat.update(
            {
                f"{section}.{name}": value
                for name, value in tree[section].items()
                if name not in (*MODEL_KINDS, "model_kind")
            }
        )
    return flat
