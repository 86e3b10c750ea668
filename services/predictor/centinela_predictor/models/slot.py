"""The models in service, swapped by one assignment."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from centinela.features.layout import FeatureLayout
from centinela_predictor.models.explanations import Explainer

if TYPE_CHECKING:
    from centinela.model.bundle import Manifest

Alias = Literal["champion", "challenger"]


class Scores(Protocol):
    """What a loaded bundle can do: ``centinela.model.scorer.Scorer``, or a fake."""

    @property
    def manifest(self) -> Manifest:
        """The bundle's description of itself."""

    def score(self, matrix: NDArray[np.float64], layout: FeatureLayout) -> NDArray[np.float64]:
        """Fraud probability of each row of *matrix*, shape (n, len(layout.names)) to (n,)."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A verified, warm model under the version it has in the registry."""

    version: str
    scorer: Scores
    explainer: Explainer

    @property
    def threshold(self) -> float:
        """Score from which a transaction is declined."""
        return self.scorer.manifest.threshold

    @property
    def review_threshold(self) -> float:
        """Score from which a transaction is reviewed."""
        return self.scorer.manifest.review_threshold


@dataclass(frozen=True, slots=True)
class ModelPair:
    """The models of one instant."""

    champion: ServedModel | None = None
    challenger: ServedModel | None = None


def describe(pair: ModelPair) -> dict[str, object]:
    """The models in service, as ``/model`` shows them."""
    return {"champion": _described(pair.champion), "challenger": _described(pair.challenger)}


def _described(model: ServedModel | None) -> dict[str, object] | None:
    if model is None:
        return None
    manifest = model.scorer.manifest
    return {
        "version": model.version,
        "model_name": manifest.model_name,
        "model_kind": manifest.model_kind,
        "backend": manifest.backend,
        "threshold": model.threshold,
        "review_threshold": model.review_threshold,
        "features": list(manifest.feature_names),
        "layout": manifest.layout_id,
        "dataset_digest": manifest.dataset_digest,
        "request_id": manifest.request_id,
        "code_commit": manifest.code_commit,
        "created_at": manifest.created_at.isoformat(),
        "metrics": manifest.metrics,
    }


class ModelSlot:
    """Holds the pair in service. Readers take ``pair`` once per batch and keep it; a swap never changes a pair
    taken."""

    def __init__(self) -> None:
        self._pair = ModelPair()
        self._writers = threading.Lock()

    @property
    def pair(self) -> ModelPair:
        """Champion and challenger at this moment."""
        return self._pair

    @property
    def loaded(self) -> bool:
        """Whether a champion serves."""
        return self._pair.champion is not None

    def swap(self, alias: Alias, model: ServedModel | None) -> ServedModel | None:
        """Put *model* in service under *alias*; returns the one it replaces."""
        with self._writers:
            before: ServedModel | None = getattr(self._pair, alias)
            self._pair = (
                replace(self._pair, champion=model) if alias == "champion" else replace(self._pair, challenger=model)
            )
        return before
