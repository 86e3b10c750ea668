"""The forms of a model agree on every row, at its splits too, and each imports only what it needs."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from centinela.model.backends import LARGEST, as_served, import_libraries, load_backend, sklearn_score
from centinela.model.bundle import ONNX, SKOPS, TREELITE, Backend
from centinela.model.export import to_onnx_bytes, to_treelite_bytes
from centinela.model.parity import TOLERANCE

RANDOM = np.random.default_rng(11)
ROWS = np.column_stack(
    [np.exp(RANDOM.normal(5, 2, 4_000)), RANDOM.integers(0, 40, 4_000) / 7.0, RANDOM.normal(size=4_000)]
)
TRUTH = ((ROWS[:, 0] > 300) ^ (ROWS[:, 1] > 3)).astype(int)
HEAVY = ("sklearn", "skops", "scipy", "pandas")


def boosting() -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=40, early_stopping=False, random_state=0).fit(as_served(ROWS), TRUTH)


def rows_at_the_splits(model: HistGradientBoostingClassifier) -> np.ndarray:
    """For every split, rows on it and on the next values on both sides, in float64 and in float32."""
    found = []
    for [tree] in model._predictors:
        for node in tree.nodes[tree.nodes["is_leaf"] == 0]:
            split = node["num_threshold"]
            near = np.float32(split)
            values = [
                split,
                *np.nextafter(split, [-np.inf, np.inf]),
                near,
                *np.nextafter(near, np.array([-np.inf, np.inf], np.float32)),
            ]
            rows = ROWS[RANDOM.integers(0, len(ROWS), len(values))]
            rows[:, node["feature_idx"]] = values
            found.append(rows)
    return np.concatenate(found)


@pytest.mark.parametrize("backend", ["onnx", "treelite"])
def test_a_row_on_a_split_goes_the_way_it_goes_in_the_estimator(backend: Backend) -> None:
    model = boosting()
    files = {ONNX: to_onnx_bytes(model), TREELITE: to_treelite_bytes(model)}
    rows = rows_at_the_splits(model)
    assert len(rows) > 3_000

    assert load_backend(backend, files, features=3)(rows) == pytest.approx(sklearn_score(model)(rows), abs=TOLERANCE)


def test_converting_a_model_does_not_change_it() -> None:
    model = boosting()
    before = [tree.nodes.copy() for [tree] in model._predictors]
    to_onnx_bytes(make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, TRUTH))
    to_onnx_bytes(model)
    assert all(np.array_equal(tree.nodes, nodes) for [tree], nodes in zip(model._predictors, before, strict=True))


def test_a_row_is_served_as_float32_whatever_it_holds() -> None:
    served = as_served(np.array([[1 / 3, 1e300, -np.inf, np.nan]]))
    assert served.dtype == np.float64
    assert np.array_equal(served, np.array([[np.float32(1 / 3), LARGEST, -LARGEST, np.nan]]), equal_nan=True)


def test_a_form_for_another_number_of_features_is_not_loaded() -> None:
    files = {ONNX: to_onnx_bytes(boosting()), TREELITE: to_treelite_bytes(boosting())}
    for backend in ("onnx", "treelite"):
        with pytest.raises(ValueError, match="the model takes 3 features, not 4"):
            load_backend(backend, files, features=4)


def imported(statements: str, folder: Path) -> set[str]:
    """Which of the heavy libraries a fresh process holds after *statements*."""
    code = (
        "import sys\nfrom pathlib import Path\nfolder ="
        f" Path({str(folder)!r})\n{statements}\nprint(*sorted(set({HEAVY}) & set(sys.modules)))"
    )
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_onnx_and_treelite_load_without_scikit_learn_and_a_predictor_starts_without_it(tmp_path: Path) -> None:
    (tmp_path / ONNX).write_bytes(to_onnx_bytes(boosting()))
    (tmp_path / TREELITE).write_bytes(to_treelite_bytes(boosting()))
    assert imported(
        f"""
import numpy as np
import centinela_predictor.gateway.process, centinela_predictor.stream.process
from centinela.model.backends import load_backend
for backend, name in (("onnx", {ONNX!r}), ("treelite", {TREELITE!r})):
    load_backend(backend, {{name: (folder / name).read_bytes()}}, features=3)(np.zeros((2, 3)))
""",
        tmp_path,
    ) <= {"scipy"}


def test_once_the_libraries_are_imported_no_form_imports_another_one(tmp_path: Path) -> None:
    import skops.io

    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, TRUTH)
    (tmp_path / SKOPS).write_bytes(skops.io.dumps(model))
    assert imported(
        f"""
import threading
from centinela.model.backends import import_libraries, load_backend
import_libraries(threading.Event())
before = set(sys.modules)
load_backend("sklearn", {{{SKOPS!r}: (folder / {SKOPS!r}).read_bytes()}}, features=3)
assert not [name for name in set(sys.modules) - before if name.split(".")[0] in {HEAVY}]
""",
        tmp_path,
    ) == set(HEAVY)


def test_importing_ends_with_the_process() -> None:
    stop = threading.Event()
    stop.set()
    before = set(sys.modules)
    import_libraries(stop)
    assert set(sys.modules) == before
