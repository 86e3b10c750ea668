"""How a bundle is built: the serving form that agrees with the estimator, thresholds, the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from centinela.model import parity
from centinela.model.backends import load_backend, sklearn_score
from centinela.model.bundle import GOLDEN, ONNX, SKOPS, Manifest, verify
from centinela.model.export import ModelFacts, build_bundle, hold_against, to_onnx_bytes
from centinela.model.parity import LEAST_ROWS, TOLERANCE, parity_rows, settle_threshold
from centinela.model.reference import histogram, reference_edges, score_histogram
from centinela.model.scorer import Scorer
from tests.support.small_models import FACTS, KINDS, LAYOUT, NAMES, RECENT, TRAIN, TRUTH, Layout, fitted, rows

BACKENDS = {
    "hgb": "onnx",
    "forest": "treelite",
    "imputed forest": "onnx",
    "flagged forest": "sklearn",
    "logistic": "onnx",
    "flagged logistic": "sklearn",
}


@pytest.fixture(scope="module", params=KINDS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path, Manifest]:
    """Each kind of model, fitted, and its bundle."""
    estimator = fitted(request.param)
    dest = tmp_path_factory.mktemp("bundles") / "bundle"
    return (
        request.param,
        estimator,
        dest,
        build_bundle(estimator, TRAIN, RECENT, replace(FACTS, model_kind=request.param), dest),
    )


def test_the_serving_form_gives_the_estimators_scores(built: tuple[str, Any, Path, Manifest]) -> None:
    kind, estimator, directory, manifest = built
    fresh, _ = rows(5_000, 3)
    wide = np.column_stack([fresh[:, 3], np.full(len(fresh), 1e6), fresh[:, :3]])

    scorer = Scorer.load(directory, version="7", layout=LAYOUT)
    scores = scorer.score(wide, LAYOUT)

    assert (manifest.backend, scorer.version) == (BACKENDS[kind], "7")
    assert (scores.dtype, scores.shape) == (np.dtype(np.float64), (5_000,))
    assert scores == pytest.approx(sklearn_score(estimator)(fresh), abs=TOLERANCE)
    assert scorer.score(wide[:0], LAYOUT).shape == (0,)


def test_one_row_scores_as_it_does_in_a_batch(built: tuple[str, Any, Path, Manifest]) -> None:
    kind, _, directory, _ = built
    scorer, layout = Scorer.load(directory), Layout("plain", NAMES)
    batch = scorer.score(RECENT[:50], layout)
    single = np.concatenate([scorer.score(RECENT[at : at + 1], layout) for at in range(50)])
    assert single == pytest.approx(batch, abs=1e-6 if "logistic" in kind else 0)


def test_the_manifest_says_what_the_model_is_and_was_made_of(good: Path) -> None:
    manifest = verify(good)
    assert manifest.feature_names == NAMES
    assert manifest.layout_id == "v1:v1"
    assert (manifest.dataset_digest, manifest.request_id, manifest.code_commit) == ("d" * 32, "r-1", "c" * 40)
    assert manifest.created_at == FACTS.created_at
    assert set(manifest.files) == {SKOPS, ONNX, GOLDEN}
    assert {"python", "scikit-learn", "onnxruntime"} <= set(manifest.versions)
    assert manifest.reference.average_precision == 0.8
    assert manifest.parity.rows >= LEAST_ROWS
    assert manifest.parity.missing_rows > 0
    assert manifest.parity.edge_rows > 0


def test_the_reference_is_that_of_the_training_rows_and_the_scores_that_of_the_recent_ones(good: Path) -> None:
    manifest = verify(good)
    reference = manifest.reference
    scores = Scorer.load(good).score(RECENT, Layout("plain", NAMES))

    assert np.array_equal(reference.edge_matrix(), reference_edges(TRAIN))
    assert np.array_equal(reference.count_matrix(), histogram(TRAIN, reference.edge_matrix()))
    assert reference.count_matrix().sum(axis=1).tolist() == [len(TRAIN)] * len(NAMES)
    assert list(reference.score_counts) == score_histogram(scores).tolist()
    assert reference.alert_rate == np.mean(scores >= manifest.threshold)
    assert reference.review_rate == np.mean((scores >= manifest.review_threshold) & (scores < manifest.threshold))


def test_a_conversion_that_is_wrong_on_missing_values_only_is_caught() -> None:
    # ONNX's trees know no missing value: a forest fitted on them is right on whole rows and wrong on the others.
    forest = fitted("forest")
    score = load_backend("onnx", {ONNX: to_onnx_bytes(forest)}, features=4)
    trusted = sklearn_score(forest)
    whole = RECENT[~np.isnan(RECENT).any(axis=1)]
    assert score(whole) == pytest.approx(trusted(whole), abs=TOLERANCE)

    gate = parity_rows(whole, whole, reference_edges(whole))
    attempt = hold_against(score, "onnx", gate, trusted(gate.matrix), (0.5,))

    assert not attempt.passed
    assert attempt.max_error is not None
    assert attempt.max_error > 0.05


def test_another_models_onnx_does_not_pass_the_gate() -> None:
    model = fitted("hgb")
    other = KINDS["hgb"]().fit(TRAIN[:2_900], TRUTH[:2_900])
    gate = parity_rows(TRAIN, RECENT, reference_edges(TRAIN))
    expected = sklearn_score(model)(gate.matrix)

    def attempt(estimator: object) -> bool:
        score = load_backend("onnx", {ONNX: to_onnx_bytes(estimator)}, features=4)
        return hold_against(score, "onnx", gate, expected, (0.5,)).passed

    assert attempt(model)
    assert not attempt(other)


@pytest.mark.parametrize(
    ("spoil", "passed"),
    [
        (lambda scores: scores, True),
        (lambda scores: scores + 0.9 * TOLERANCE, True),
        (lambda scores: scores + 1.1 * TOLERANCE, False),
        (lambda scores: np.where(np.arange(len(scores)) == 2, np.nan, scores), False),
        (lambda scores: scores[:-1], False),
    ],
)
def test_scores_count_as_equal_within_the_tolerance(spoil: Callable[[np.ndarray], np.ndarray], passed: bool) -> None:
    expected = np.linspace(0.1, 0.9, 5)
    assert parity.compare("onnx", spoil(expected), expected, (0.2,)).passed is passed


def test_a_decision_that_differs_fails_even_within_the_tolerance() -> None:
    expected = np.array([0.1, 0.5, 0.9])
    got = expected - np.array([0, 1e-9, 0])
    assert parity.compare("onnx", got, expected, (0.4,)).passed
    attempt = parity.compare("onnx", got, expected, (0.5,))
    assert (attempt.passed, attempt.flips) == (False, 1)


def test_parity_rows_are_many_and_strange_however_few_there_were() -> None:
    gate = parity_rows(TRAIN[:50], RECENT[:20], reference_edges(TRAIN[:50]))
    assert len(gate.matrix) - gate.missing - gate.edge == LEAST_ROWS
    assert np.isnan(gate.matrix).all(axis=1).any()
    assert (np.abs(gate.matrix) >= 1e9).any()
    assert np.array_equal(
        gate.matrix, parity_rows(TRAIN[:50], RECENT[:20], reference_edges(TRAIN[:50])).matrix, equal_nan=True
    )


@pytest.mark.parametrize(("wanted", "settled"), [(0.5, 0.45), (0.3, 0.2), (0.1, 0.1), (0.95, 0.95)])
def test_a_threshold_settles_between_scores_without_changing_a_decision(wanted: float, settled: float) -> None:
    scores = np.array([0.1, 0.3, 0.6, 0.9])
    got = settle_threshold(scores, wanted)
    assert got == pytest.approx(settled)
    assert ((scores >= got) == (scores >= wanted)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: replace(f, threshold=0.1), "not ascending"),
        (lambda f: replace(f, feature_names=NAMES[:3]), "3 feature names"),
        (lambda f: replace(f, created_at=datetime(2026, 1, 1)), "no zone"),  # noqa: DTZ001
    ],
)
def test_facts_that_cannot_be_true_are_refused(
    tmp_path: Path, change: Callable[[ModelFacts], ModelFacts], message: str
) -> None:
    estimator = fitted("logistic")
    with pytest.raises(ValueError, match=message):
        build_bundle(estimator, TRAIN, RECENT, change(FACTS), tmp_path / "bundle")


def test_estimators_that_no_predictor_could_serve_are_refused(tmp_path: Path) -> None:
    import pandas as pd

    framed = KINDS["logistic"]().fit(pd.DataFrame(TRAIN, columns=list(NAMES)), TRUTH)
    three = KINDS["logistic"]().fit(TRAIN, TRUTH + (np.arange(len(TRUTH)) % 2))
    for estimator, message in ((framed, "DataFrame"), (three, "classes")):
        with pytest.raises(ValueError, match=message):
            build_bundle(estimator, TRAIN, RECENT, FACTS, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
