"""Bundles: built, tampered with, loaded, scored."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from centinela.errors import ModelRejected
from centinela.model import bundle, export
from centinela.model.backends import load_backend, sklearn_score
from centinela.model.bundle import GOLDEN, MANIFEST, ONNX, SERVING_FILE, SKOPS, Manifest, sha256, verify
from centinela.model.export import ModelFacts, build_bundle, hold_against, to_onnx_bytes
from centinela.model.parity import LEAST_ROWS, TOLERANCE, parity_rows, settle_threshold
from centinela.model.reference import histogram, reference_edges, score_histogram
from centinela.model.scorer import Scorer

NAMES = ("amount", "count", "risk", "v1")
FACTS = ModelFacts(
    model_name="FraudDetector", model_kind="hgb", layout_id="v1:v1", feature_names=NAMES, threshold=0.5, review_threshold=0.2,
    average_precision=0.8, dataset_digest="d" * 32, request_id="r-1", code_commit="c" * 40,
    created_at=datetime(2026, 3, 1, tzinfo=UTC), metrics={"average_precision": 0.8},
)


@dataclass(frozen=True)
class Layout:
    id: str
    names: tuple[str, ...]


LAYOUT = Layout("v1:v1", ("v1", "unused", *NAMES[:3]))


def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(count, len(NAMES)))
    matrix[:, 0] = np.round(np.exp(2 * matrix[:, 0]) * 50, 2)
    truth = matrix[:, 0] / 500 + matrix[:, 1] + random.normal(scale=0.5, size=count) > 1.5
    matrix[random.random(matrix.shape) < 0.05] = np.nan
    return matrix, truth.astype(int)


TRAIN, TRUTH = rows(3_000, 1)
RECENT, _ = rows(2_000, 2)

KINDS: dict[str, Callable[[], Any]] = {
    "hgb": lambda: HistGradientBoostingClassifier(max_iter=15, l2_regularization=1.0, early_stopping=False, random_state=0),
    "forest": lambda: RandomForestClassifier(20, max_depth=8, random_state=0),
    "imputed forest": lambda: make_pipeline(SimpleImputer(strategy="median"), RandomForestClassifier(20, max_depth=8, random_state=0)),
    "flagged forest": lambda: make_pipeline(SimpleImputer(add_indicator=True), RandomForestClassifier(20, max_depth=8, random_state=0)),
    "logistic": lambda: make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression()),
    "flagged logistic": lambda: make_pipeline(SimpleImputer(add_indicator=True), StandardScaler(), LogisticRegression()),
}


@cache
def fitted(kind: str) -> Any:
    """The estimator of *kind*, fitted once."""
    return KINDS[kind]().fit(TRAIN, TRUTH)


BACKENDS = {"hgb": "onnx", "forest": "treelite", "imputed forest": "onnx", "flagged forest": "sklearn", "logistic": "onnx",
            "flagged logistic": "sklearn"}


@pytest.fixture(scope="module", params=KINDS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path, Manifest]:
    """Each kind of model, fitted, and its bundle."""
    estimator = fitted(request.param)
    dest = tmp_path_factory.mktemp("bundles") / "bundle"
    return request.param, estimator, dest, build_bundle(estimator, TRAIN, RECENT, replace(FACTS, model_kind=request.param), dest)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("bundles") / "good"
    build_bundle(fitted("hgb"), TRAIN, RECENT, FACTS, dest)
    return dest


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    return Path(shutil.copytree(good, tmp_path / "bundle"))


def reseal(directory: Path, **changes: object) -> None:
    """Write the manifest anew with *changes* and the digests of the files as they are: a forger's, or a builder's bug."""
    manifest = msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Manifest)
    files = {name: sha256((directory / name).read_bytes()) for name in manifest.files}
    changed = msgspec.structs.replace(manifest, **{"files": files, **changes})
    (directory / MANIFEST).write_bytes(msgspec.json.encode(changed))


def test_the_serving_form_gives_the_estimators_scores(built: tuple[str, Any, Path, Manifest]) -> None:
    kind, estimator, directory, manifest = built
    fresh, _ = rows(5_000, 3)
    wide = np.column_stack([fresh[:, 3], np.full(len(fresh), 1e6), fresh[:, :3]])

    scorer = Scorer.load(directory, version="7", layout=LAYOUT)
    scores = scorer.score(wide, LAYOUT)

    assert (manifest.backend, scorer.version) == (BACKENDS[kind], "7")
    assert (scores.dtype, scores.shape) == (np.float64, (5_000,))
    assert scores == pytest.approx(sklearn_score(estimator)(fresh), abs=TOLERANCE)
    assert scorer.score(wide[:0], LAYOUT).shape == (0,)


def test_one_row_scores_as_it_does_in_a_batch(built: tuple[str, Any, Path, Manifest]) -> None:
    kind, _, directory, _ = built
    scorer, layout = Scorer.load(directory), Layout("plain", NAMES)
    batch = scorer.score(RECENT[:50], layout)
    single = np.concatenate([scorer.score(RECENT[at:at + 1], layout) for at in range(50)])
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


@pytest.mark.parametrize(("spoil", "passed"), [
    (lambda scores: scores, True),
    (lambda scores: scores + 0.9 * TOLERANCE, True),
    (lambda scores: scores + 1.1 * TOLERANCE, False),
    (lambda scores: np.where(np.arange(len(scores)) == 2, np.nan, scores), False),
    (lambda scores: scores[:-1], False),
])
def test_scores_count_as_equal_within_the_tolerance(spoil: Callable[[np.ndarray], np.ndarray], passed: bool) -> None:
    expected = np.linspace(0.1, 0.9, 5)
    assert export.compare("onnx", spoil(expected), expected, (0.2,)).passed is passed


def test_a_decision_that_differs_fails_even_within_the_tolerance() -> None:
    expected = np.array([0.1, 0.5, 0.9])
    got = expected - np.array([0, 1e-9, 0])
    assert export.compare("onnx", got, expected, (0.4,)).passed
    attempt = export.compare("onnx", got, expected, (0.5,))
    assert (attempt.passed, attempt.flips) == (False, 1)


def test_parity_rows_are_many_and_strange_however_few_there_were() -> None:
    gate = parity_rows(TRAIN[:50], RECENT[:20], reference_edges(TRAIN[:50]))
    assert len(gate.matrix) - gate.missing - gate.edge == LEAST_ROWS
    assert np.isnan(gate.matrix).all(axis=1).any()
    assert (np.abs(gate.matrix) >= 1e9).any()
    assert np.array_equal(gate.matrix, parity_rows(TRAIN[:50], RECENT[:20], reference_edges(TRAIN[:50])).matrix, equal_nan=True)


@pytest.mark.parametrize(("wanted", "settled"), [(0.5, 0.45), (0.3, 0.2), (0.1, 0.1), (0.95, 0.95)])
def test_a_threshold_settles_between_scores_without_changing_a_decision(wanted: float, settled: float) -> None:
    scores = np.array([0.1, 0.3, 0.6, 0.9])
    got = settle_threshold(scores, wanted)
    assert got == pytest.approx(settled)
    assert ((scores >= got) == (scores >= wanted)).all()


@pytest.mark.parametrize("name", [MANIFEST, SKOPS, ONNX, GOLDEN])
def test_a_file_that_is_missing_or_changed_is_refused(copy: Path, name: str) -> None:
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-20] + bytes(20))
    with pytest.raises(ModelRejected, match="invalid_manifest" if name == MANIFEST else f"digest_mismatch: {name}"):
        Scorer.load(copy)
    (copy / name).unlink()
    with pytest.raises(ModelRejected, match=f"missing_file: {name}"):
        Scorer.load(copy)


def test_a_golden_set_with_other_scores_is_refused(copy: Path) -> None:
    with np.load(io.BytesIO((copy / GOLDEN).read_bytes())) as golden:
        inputs, expected = golden["inputs"], golden["expected"].copy()
    expected[-1] += 0.01
    np.savez(copy / GOLDEN, inputs=inputs, expected=expected)
    reseal(copy)
    with pytest.raises(ModelRejected, match=r"golden_mismatch: scores are off by 0\.01"):
        Scorer.load(copy)


@pytest.mark.parametrize("content", [
    {}, {"inputs": np.zeros((3, 9)), "expected": np.zeros(3)}, {"inputs": np.zeros((3, 4)), "expected": np.zeros(2)},
    {"inputs": np.zeros((0, 4)), "expected": np.zeros(0)},
    {"inputs": np.array([[object()]], dtype=object), "expected": np.zeros(1)},
])
def test_a_golden_set_that_is_none_is_refused(copy: Path, content: dict[str, np.ndarray]) -> None:
    np.savez(copy / GOLDEN, **content)
    reseal(copy)
    with pytest.raises(ModelRejected, match="invalid_golden_set"):
        Scorer.load(copy)


def test_the_right_digests_of_the_wrong_model_do_not_help(copy: Path) -> None:
    other = KINDS["hgb"]().fit(TRAIN, 1 - TRUTH)
    (copy / ONNX).write_bytes(to_onnx_bytes(other))
    reseal(copy)
    with pytest.raises(ModelRejected, match="golden_mismatch"):
        Scorer.load(copy)


@pytest.mark.parametrize("backend", ["onnx", "sklearn"])
def test_content_that_no_library_reads_is_refused(copy: Path, backend: str) -> None:
    (copy / SERVING_FILE[backend]).write_bytes(b"nonsense")  # type: ignore[index]
    reseal(copy, backend=backend)
    with pytest.raises(ModelRejected, match=f"load_failed: {backend}"):
        Scorer.load(copy)


def test_a_type_that_is_not_allowed_is_never_built(copy: Path) -> None:
    import skops.io

    (copy / SKOPS).write_bytes(skops.io.dumps(Path("/nowhere")))
    reseal(copy, backend="sklearn")
    with pytest.raises(ModelRejected, match="load_failed: sklearn: UntrustedTypesFoundException"):
        Scorer.load(copy)


@pytest.mark.parametrize(("changes", "reason"), [
    ({"format": 2}, "unknown_format"),
    ({"files": {"../../etc/passwd": "0"}}, "files outside a bundle"),
    ({"files": {SKOPS: "0", GOLDEN: "0"}}, "no digest of model.onnx"),
    ({"backend": "treelite"}, "no digest of model.treelite"),
    ({"feature_names": ("amount", "amount", "risk", "v1")}, "repeated"),
    ({"feature_names": ("amount",)}, "reference is not for 1 features"),
    ({"review_threshold": 0.99}, "review_threshold is above"),
])
def test_a_manifest_that_contradicts_itself_is_refused(copy: Path, changes: dict[str, object], reason: str) -> None:
    reseal(copy, **changes)
    with pytest.raises(ModelRejected, match=reason):
        verify(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model_name": 3}', b"\xff\xfe"])
def test_a_manifest_that_cannot_be_read_is_refused(copy: Path, content: bytes) -> None:
    (copy / MANIFEST).write_bytes(content)
    with pytest.raises(ModelRejected, match="invalid_manifest"):
        verify(copy)


def test_a_layout_without_the_models_columns_is_refused(good: Path) -> None:
    poor = Layout("v1:", ("amount", "count", "risk"))
    with pytest.raises(ModelRejected, match="missing_feature: the layout has no v1"):
        Scorer.load(good, layout=poor)


def test_a_folder_that_is_there_is_never_overwritten(good: Path) -> None:
    with pytest.raises(FileExistsError):
        bundle.write(good, verify(good), {})


def test_a_bundle_that_cannot_be_written_whole_is_not_there_at_all(good: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        bundle.write(tmp_path / "new", verify(good), {SKOPS: None})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="no files of a bundle"):
        bundle.write(tmp_path / "new", verify(good), {"notes.txt": b""})
    assert list(tmp_path.iterdir()) == []


def test_metadata_names_the_version_for_simple_readers(copy: Path) -> None:
    bundle.write_metadata(copy, verify(copy), "12")
    body = json.loads((copy / "metadata.json").read_text())
    assert (body["version"], body["model_name"], body["model_kind"], body["created_at"]) == (
        "12", "FraudDetector", "hgb", "2026-03-01T00:00:00Z")
    assert verify(copy).model_name == "FraudDetector"


@pytest.mark.parametrize(("change", "message"), [
    (lambda f: replace(f, threshold=0.1), "not ascending"),
    (lambda f: replace(f, feature_names=NAMES[:3]), "3 feature names"),
    (lambda f: replace(f, created_at=datetime(2026, 1, 1)), "no zone"),  # noqa: DTZ001
])
def test_facts_that_cannot_be_true_are_refused(tmp_path: Path, change: Callable[[ModelFacts], ModelFacts], message: str) -> None:
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
