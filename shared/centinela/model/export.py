"""From a fitted estimator to a bundle whose serving form was compared with it row by row."""

from __future__ import annotations

import copy
import io
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import skops.io
import treelite
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from centinela.model import bundle, skops_file
from centinela.model.backends import TRUSTED_TYPES, Score, load_backend, sklearn_score
from centinela.model.bundle import Attempt, Backend, Manifest, Parity, Reference
from centinela.model.parity import TOLERANCE, ParityRows, compare, golden_rows, parity_rows, settle_threshold
from centinela.model.reference import BINS, histogram, reference_edges, score_histogram

LIBRARIES = ("numpy", "scikit-learn", "onnxruntime", "skl2onnx", "treelite", "skops")
ONNX_OPSET = 17


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What the trainer knows of a model. ``average_precision`` is that on mature labels of the recent rows."""

    model_name: str
    model_kind: str
    layout_id: str
    feature_names: tuple[str, ...]
    threshold: float
    review_threshold: float
    average_precision: float | None
    dataset_digest: str
    request_id: str
    code_commit: str
    created_at: datetime
    metrics: dict[str, float] = field(default_factory=dict)


def build_bundle(
    estimator: Any, train: NDArray[np.float64], recent: NDArray[np.float64], facts: ModelFacts, dest: Path
) -> Manifest:
    """Write the bundle of *estimator* to *dest*.

    The serving form is the first of ONNX, treelite and scikit-learn that gives the estimator's scores (within
    ``TOLERANCE``) and its decisions on at least 10,000 rows, missing values and edge values among them.
    Both thresholds are moved to the middle of the gap between the recent scores around them, which changes no
    decision on the recent rows and keeps rounding from changing one.

    Args:
        estimator: Fitted on a float64 matrix (not a DataFrame) as ``backends.as_served`` gives it, with labels 0 and 1;
            a Pipeline may be.
        train: Rows it was fitted on, shape (n, features), columns as ``facts.feature_names``; missing values NaN.
        recent: The newest rows, not trained on, same columns.
        facts: Everything else.
        dest: Folder to make.

    Returns:
        The manifest as written.

    Raises:
        ValueError: Shapes, classes, thresholds or types in the estimator are not as described.
        FileExistsError: *dest* exists.
    """
    names = facts.feature_names
    _require_sound(estimator, train, recent, facts)
    trusted = sklearn_score(estimator)
    recent_scores = trusted(recent)
    threshold = settle_threshold(recent_scores, facts.threshold)
    review = settle_threshold(recent_scores, facts.review_threshold)
    edges = reference_edges(train, BINS)
    rows = parity_rows(train, recent, edges)
    expected = trusted(rows.matrix)

    files: dict[str, bytes] = {bundle.SKOPS: skops_file.dump(estimator)}
    backend, attempts = _choose(estimator, files, rows, expected, (threshold, review))
    golden = golden_rows(expected, (threshold, review), rows)
    files[bundle.GOLDEN] = _golden(rows.matrix[golden], expected[golden])
    served = load_backend(backend, files, features=len(names))(recent)

    manifest = Manifest(
        model_name=facts.model_name,
        model_kind=facts.model_kind,
        layout_id=facts.layout_id,
        feature_names=names,
        backend=backend,
        threshold=threshold,
        review_threshold=review,
        files={},
        reference=Reference(
            bins=BINS,
            rows=len(train),
            edges=tuple(tuple(row[np.isfinite(row)].tolist()) for row in edges),
            counts=tuple(map(tuple, histogram(train, edges).tolist())),
            recent_rows=len(recent),
            score_counts=tuple(score_histogram(served).tolist()),
            alert_rate=float(np.mean(served >= threshold)),
            review_rate=float(np.mean((served >= review) & (served < threshold))),
            average_precision=facts.average_precision,
        ),
        parity=Parity(
            rows=len(rows.matrix),
            missing_rows=rows.missing,
            edge_rows=rows.edge,
            tolerance=TOLERANCE,
            attempts=attempts,
        ),
        dataset_digest=facts.dataset_digest,
        request_id=facts.request_id,
        code_commit=facts.code_commit,
        created_at=facts.created_at,
        versions={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        metrics=facts.metrics,
    )
    return bundle.write(dest, manifest, files)


def _require_sound(estimator: Any, train: NDArray[np.float64], recent: NDArray[np.float64], facts: ModelFacts) -> None:
    width = len(facts.feature_names)
    if hasattr(estimator, "feature_names_in_"):
        raise ValueError("fit the estimator on a float64 matrix, not on a DataFrame: the scorer selects columns itself")
    if estimator.n_features_in_ != width or train.shape[1:] != (width,) or recent.shape[1:] != (width,):
        raise ValueError(
            f"{width} feature names, but estimator, train and recent have "
            f"{estimator.n_features_in_}, {train.shape}, {recent.shape}"
        )
    if not len(train) or not len(recent):
        raise ValueError("train and recent need rows")
    if list(estimator.classes_) != [0, 1]:
        raise ValueError(f"classes are {list(estimator.classes_)}, not [0, 1]")
    if not 0 <= facts.review_threshold <= facts.threshold <= 1:
        raise ValueError(
            f"thresholds {facts.review_threshold} (review) and {facts.threshold} are not ascending within [0, 1]"
        )
    if facts.created_at.tzinfo is None:
        raise ValueError("created_at has no zone")
    strange = set(skops.io.get_untrusted_types(data=skops.io.dumps(estimator))) - set(TRUSTED_TYPES)
    if strange:
        raise ValueError(f"the estimator holds types that no predictor loads: {sorted(strange)}")


def _choose(
    estimator: Any,
    files: dict[str, bytes],
    rows: ParityRows,
    expected: NDArray[np.float64],
    limits: tuple[float, float],
) -> tuple[Backend, tuple[Attempt, ...]]:
    """The first backend that passes, its file added to *files*, and all attempts."""
    converters: tuple[tuple[Backend, Callable[[Any], bytes] | None], ...] = (
        ("onnx", to_onnx_bytes),
        ("treelite", to_treelite_bytes),
        ("sklearn", None),
    )
    attempts: list[Attempt] = []
    for backend, convert in converters:
        tried = dict(files)
        try:
            if convert is not None:
                tried[bundle.SERVING_FILE[backend]] = convert(estimator)
            attempt = hold_against(
                load_backend(backend, tried, features=rows.matrix.shape[1]), backend, rows, expected, limits
            )
        except Exception as error:
            attempt = Attempt(backend=backend, passed=False, reason=f"{type(error).__name__}: {str(error)[:300]}")
        attempts.append(attempt)
        if attempt.passed:
            files.update(tried)
            return backend, tuple(attempts)
    raise ValueError(f"the estimator does not survive its own file: {msgspec.to_builtins(attempts)}")


def hold_against(
    score: Score, backend: Backend, rows: ParityRows, expected: NDArray[np.float64], limits: tuple[float, ...]
) -> Attempt:
    """The parity gate: *score* on all parity rows against the estimator's *expected* scores."""
    return compare(backend, score(rows.matrix), expected, limits)


def to_onnx_bytes(estimator: Any) -> bytes:
    """The estimator as an ONNX graph on float32 rows. Raises whatever the converter raises."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    graph = to_onnx(
        _with_float32_splits(estimator),
        initial_types=[("features", FloatTensorType([None, estimator.n_features_in_]))],
        options={"zipmap": False},
        target_opset=ONNX_OPSET,
    )
    return bytes(graph.SerializeToString())


def to_treelite_bytes(estimator: Any) -> bytes:
    """The estimator's trees. Raises ``TreeliteError`` for anything but trees, a pipeline before trees too."""
    return bytes(treelite.sklearn.import_model(estimator).serialize_bytes())


def _with_float32_splits(estimator: Any) -> Any:
    """*estimator* with boosted trees that send every float32 row where it went before, by splits that float32 can hold.

    For a float32 x, ``x <= split`` holds exactly where x is at most the largest float32 that is not above the split.
    The converter takes the nearest float32 instead, so that a row on a split could go the other way; it does so for
    boosting only.
    """
    if not isinstance(estimator[-1] if hasattr(estimator, "steps") else estimator, HistGradientBoostingClassifier):
        return estimator
    estimator = copy.deepcopy(estimator)
    boosting = estimator[-1] if hasattr(estimator, "steps") else estimator
    for trees in boosting._predictors:
        for tree in trees:
            tree.nodes["num_threshold"] = _float32_below(tree.nodes["num_threshold"])
    return estimator


def _float32_below(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest float32 that is not above each of *values*, as float64."""
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
    return np.where(nearest > values, np.nextafter(nearest, np.float32(-np.inf)), nearest).astype(np.float64)


def _golden(inputs: NDArray[np.float64], expected: NDArray[np.float64]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, inputs=inputs, expected=expected)
    return buffer.getvalue()
