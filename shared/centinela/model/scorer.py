"""A bundle in memory, verified and warm."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from centinela.errors import ModelRejected
from centinela.model.backends import Score, load_backend
from centinela.model.bundle import GOLDEN, Manifest, Verified, read_verified
from centinela.model.signing import TrustedKeys

WARM_ROUNDS = 8


class Columns(Protocol):
    """What the scorer needs of a feature layout (``centinela.features.layout.FeatureLayout``)."""

    @property
    def id(self) -> str:
        """Equal for equal names in equal order."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of a matrix in this layout."""


class Scorer:
    """Scores rows with one verified model. Thread-safe.

    Args:
        manifest: Of the bundle.
        score: The serving form, single-threaded.
        version: The registry's version, where the caller knows it.
    """

    def __init__(self, manifest: Manifest, score: Score, version: str | None = None) -> None:
        self.manifest = manifest
        self.version = version
        self._score = score
        self._columns: dict[str, NDArray[np.intp]] = {}

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        version: str | None = None,
        layout: Columns | None = None,
        trusted: TrustedKeys | None = None,
    ) -> Scorer:
        """The model in *directory*: digests checked, loaded from the bytes checked, warmed, checked against its golden
        set.

        Args:
            directory: A bundle (see ``centinela.model.bundle``).
            version: The registry's version, carried along.
            trusted: See ``read_verified``.
            layout: Where given, a model that needs a column which the layout lacks is refused now rather than when it
                scores.

        Raises:
            ModelRejected: Any of it failed. The message begins with a constant reason: those of ``read_verified``,
                ``missing_feature``, ``load_failed``, ``invalid_golden_set``, ``golden_mismatch``.
        """
        bundle = read_verified(directory, trusted)
        manifest = bundle.manifest
        try:
            score = load_backend(manifest.backend, bundle.files, features=len(manifest.feature_names))
        except Exception as error:
            raise ModelRejected(f"load_failed: {manifest.backend}: {_brief(error)}") from error
        scorer = cls(manifest, score, version)
        if layout is not None:
            scorer.require(layout)
        _check_golden(bundle, score)
        return scorer

    def require(self, layout: Columns) -> None:
        """Refuse a layout without the model's columns.

        Raises:
            ModelRejected: ``missing_feature``, naming them.
        """
        if missing := [name for name in self.manifest.feature_names if name not in set(layout.names)]:
            raise ModelRejected(f"missing_feature: the layout has no {', '.join(missing)}")

    def select(self, matrix: NDArray[np.float64], layout: Columns) -> NDArray[np.float64]:
        """The model's columns of *matrix* in its order, contiguous: shape (n, len(layout.names)) to (n, features)."""
        columns = self._columns.get(layout.id)
        if columns is None:
            self.require(layout)
            at = {name: index for index, name in enumerate(layout.names)}
            columns = np.array([at[name] for name in self.manifest.feature_names], dtype=np.intp)
            self._columns[layout.id] = columns
        return np.ascontiguousarray(matrix[:, columns], dtype=np.float64)

    def score(self, matrix: NDArray[np.float64], layout: Columns) -> NDArray[np.float64]:
        """Fraud probability of each row.

        Args:
            matrix: Features, shape (n, len(layout.names)); missing values NaN.
            layout: What the columns mean.

        Returns:
            Shape (n,), float64.

        Raises:
            ModelRejected: The layout lacks a column of the model.
        """
        if len(matrix) == 0:
            return np.empty(0, dtype=np.float64)
        return self._score(self.select(matrix, layout))


def _check_golden(bundle: Verified, score: Score) -> None:
    """Score the golden rows as a batch and one by one (which warms both paths) and compare.

    Raises:
        ModelRejected: ``invalid_golden_set`` or ``golden_mismatch``.
    """
    manifest = bundle.manifest
    try:
        with np.load(io.BytesIO(bundle.files[GOLDEN]), allow_pickle=False) as golden:
            inputs = np.ascontiguousarray(golden["inputs"], dtype=np.float64)
            expected = np.asarray(golden["expected"], dtype=np.float64)
    except Exception as error:
        raise ModelRejected(f"invalid_golden_set: {_brief(error)}") from error
    if inputs.ndim != 2 or not 0 < len(inputs) == len(expected) or inputs.shape[1] != len(manifest.feature_names):
        raise ModelRejected(f"invalid_golden_set: inputs {inputs.shape}, expected {expected.shape}")
    try:
        batch = score(inputs)
        single = np.concatenate([score(inputs[at : at + 1]) for at in range(min(WARM_ROUNDS, len(inputs)))])
    except Exception as error:
        raise ModelRejected(f"golden_mismatch: scoring failed: {_brief(error)}") from error
    for got, want in ((batch, expected), (single, expected[: len(single)])):
        worst = float(np.max(np.abs(got - want))) if got.shape == want.shape else float("nan")
        if not worst <= manifest.parity.tolerance:
            raise ModelRejected(
                f"golden_mismatch: scores are off by {worst:.3g}; at most {manifest.parity.tolerance:.3g}"
            )
        for limit in (manifest.threshold, manifest.review_threshold):
            if flips := int(np.sum((got >= limit) != (want >= limit))):
                raise ModelRejected(f"golden_mismatch: {flips} decisions differ at {limit:.6g}")


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"
