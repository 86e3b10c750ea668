"""The three forms of a model that can serve, each as one function from rows to fraud probabilities.

Every form sees its rows rounded to float32 (``as_served``), which is all that ONNX knows: so all forms can agree
exactly.

scikit-learn, skops and treelite take seconds to import, so each is imported only by the form that needs it: an ONNX
model needs none, treelite not the other two. ``import_libraries`` has them ready before a model comes that needs them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
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

LIBRARIES = ("treelite", "scipy.stats", "pandas", "sklearn.ensemble", "skops.io")
"""What some form needs and none of those loaded so far may have, in steps of a second or so, the likeliest first."""

OPTIONAL = ("pandas",)
"""What scikit-learn imports where it is installed."""

LARGEST = float(np.finfo(np.float32).max)


def as_served(matrix: Matrix) -> Matrix:
    """*matrix* as every form of a model sees it: rounded to float32, what is too large for it to the largest; NaN
    stays.

    Fit a model on such rows: it will not see others.
    """
    return _float32(matrix).astype(np.float64)


def import_libraries(stop: threading.Event, rest_s: float = 0.0) -> None:
    """Import what any form may need: seconds of CPU that no swap should wait for. Ends early on *stop*; safe during a
    load.

    Args:
        rest_s: After treelite, so long to wait before all that the last resort, scikit-learn, needs: a start is busy
            enough.
    """
    for name in LIBRARIES:
        if stop.wait(rest_s if name == LIBRARIES[1] else 0.0):
            return
        if name not in OPTIONAL or find_spec(name) is not None:
            import_module(name)


def load_backend(backend: Backend, files: Mapping[str, bytes], *, features: int) -> Score:
    """The scoring function of *backend* from the files of a bundle; single-threaded.

    Returns:
        Float64 rows of shape (n, features), n >= 1, to fraud probabilities of shape (n,).

    Raises:
        ValueError: The model is not for *features* columns. Whatever the libraries raise on content they cannot read.
    """
    if backend == "onnx":
        return _onnx(files[ONNX], features)
    if backend == "treelite":
        import treelite

        model = treelite.Model.deserialize_bytes(files[TREELITE])
        _require_features(model.num_feature, features)
        return treelite_score(model)
    estimator = load_estimator(files[SKOPS])
    _require_features(getattr(estimator, "n_features_in_", features), features)
    return sklearn_score(estimator)


def _require_features(taken: int, features: int) -> None:
    if taken != features:
        raise ValueError(f"the model takes {taken} features, not {features}")


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
        return np.asarray(estimator.predict_proba(as_served(matrix))[:, 1], dtype=np.float64)

    return score


def treelite_score(model: treelite.Model) -> Score:
    """Scores by treelite's tree inference."""
    import treelite

    def score(matrix: Matrix) -> NDArray[np.float64]:
        raw = treelite.gtil.predict(model, np.ascontiguousarray(as_served(matrix)), nthread=1)
        return np.asarray(raw.reshape(len(matrix), -1)[:, -1], dtype=np.float64)

    return score


def _float32(matrix: Matrix) -> NDArray[np.float32]:
    return np.maximum(np.minimum(matrix, LARGEST), -LARGEST).astype(np.float32)


def _onnx(data: bytes, features: int) -> Score:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    [entry] = session.get_inputs()
    _require_features(entry.shape[-1], features)
    name, outputs = entry.name, [session.get_outputs()[-1].name]

    def score(matrix: Matrix) -> NDArray[np.float64]:
        probabilities = session.run(outputs, {name: _float32(matrix)})[0]
        return np.asarray(probabilities[:, 1], dtype=np.float64)

    return score
