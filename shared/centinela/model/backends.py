"""The three forms of a model that can serve, each as one function from rows to fraud probabilities.

scikit-learn, skops and treelite take seconds to import, so each is imported only by the form that needs it: an ONNX model needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from centinela.model.bundle import ONNX, SKOPS, TREELITE, Backend

if TYPE_CHECKING:
    import treelite

Matrix = NDArray[np.float64]
Score = Callable[[Matrix], NDArray[np.float64]]

TRUSTED_TYPES = (
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)
"""Types beyond skops' own defaults that a bundle may hold. Nothing else is ever built from a file; pickle never is."""


def load_backend(backend: Backend, files: Mapping[str, bytes], *, features: int) -> Score:
    """The scoring function of *backend* from the files of a bundle; single-threaded.

    Returns:
        Float64 rows of shape (n, features), n >= 1, to fraud probabilities of shape (n,).

    Raises:
        ValueError: The model is not for *features* columns. Whatever the libraries raise on content they cannot read.
    """
    if backend == "onnx":
        return _onnx(files[ONNX], features)
    estimator = load_estimator(files[SKOPS])
    if getattr(estimator, "n_features_in_", features) != features:
        raise ValueError(f"the estimator takes {estimator.n_features_in_} features, not {features}")
    if backend == "sklearn":
        return sklearn_score(estimator)
    import treelite

    return treelite_score(treelite.Model.deserialize_bytes(files[TREELITE]), estimator)


def load_estimator(data: bytes) -> Any:
    """The scikit-learn estimator of ``model.skops``.

    Raises:
        skops.io.exceptions.UntrustedTypesFoundException: It holds a type that is not allowed.
    """
    import skops.io

    return skops.io.loads(data, trusted=list(TRUSTED_TYPES))


def sklearn_score(estimator: Any) -> Score:
    """Scores by scikit-learn itself, on one thread."""
    jobs = [name for name in estimator.get_params() if name.rsplit("__", 1)[-1] == "n_jobs"]
    estimator.set_params(**dict.fromkeys(jobs, 1))

    def score(matrix: Matrix) -> NDArray[np.float64]:
        return np.asarray(estimator.predict_proba(matrix)[:, 1], dtype=np.float64)

    return score


def treelite_score(model: treelite.Model, estimator: Any) -> Score:
    """Scores by treelite's tree inference, after the first steps of *estimator* where it is a pipeline.

    scikit-learn's forests round their rows to float32 first, its histogram boosting does not; so rows are rounded here too.
    """
    import treelite
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

    steps = getattr(estimator, "steps", [("model", estimator)])
    prepare = estimator[:-1] if len(steps) > 1 else None
    rounds = isinstance(steps[-1][1], RandomForestClassifier | ExtraTreesClassifier)

    def score(matrix: Matrix) -> NDArray[np.float64]:
        rows = matrix if prepare is None else prepare.transform(matrix)
        rows = np.ascontiguousarray(_float32(rows) if rounds else rows, dtype=np.float64)
        raw = treelite.gtil.predict(model, rows, nthread=1)
        return np.asarray(raw.reshape(len(rows), -1)[:, -1], dtype=np.float64)

    return score


def _float32(matrix: Matrix) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return matrix.astype(np.float32)


def _onnx(data: bytes, features: int) -> Score:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    [entry] = session.get_inputs()
    if entry.shape[-1] != features:
        raise ValueError(f"the graph takes {entry.shape[-1]} features, not {features}")
    name, outputs = entry.name, [session.get_outputs()[-1].name]

    def score(matrix: Matrix) -> NDArray[np.float64]:
        probabilities = session.run(outputs, {name: _float32(matrix)})[0]
        return np.asarray(probabilities[:, 1], dtype=np.float64)

    return score
