"""The model that a challenger is compared with: the one that serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import structlog

from centinela.errors import ModelRejected
from centinela.features.layout import FeatureLayout
from centinela.model.registry import CHAMPION, Registry
from centinela.model.scorer import Scorer
from centinela_trainer.training.dataset import Floats

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Champion:
    """The champion and its scores of the test rows; None where it cannot score them.

    ``fault``: why it could not be loaded: then nothing may take its place, because nobody knows how good it is.
    ``withdrawn``: the alias was removed, but predictors go on serving the model.
    """

    version: str
    scores: Floats | None
    fault: str | None = None
    withdrawn: bool = False


def score_champion(registry: Registry, rows: Floats, layout: FeatureLayout, folder: Path) -> Champion | None:
    """Score *rows*, shape (n, len(layout.names)), with the champion. None where there never was one.

    A champion that needs a column which the layout no longer has cannot serve these rows, so there is nothing to
    compare with: it has neither scores nor a fault. The same holds for one whose alias was removed and which cannot be
    loaded: that is how an operator begins again without a champion.

    Args:
        folder: New; its bundle is put there.

    Raises:
        DependencyUnavailable: MLflow is unavailable.
    """
    version, withdrawn = registry.version_of(CHAMPION), False
    if version is None:
        history = registry.history()
        if not history:
            return None
        version, withdrawn = history[-1].version, True
    try:
        scorer = Scorer.load(registry.download(version, folder))
    except ModelRejected as error:
        _log.warning("champion.unusable", model_version=version, detail=str(error), withdrawn=withdrawn)
        return Champion(version, None, None if withdrawn else str(error), withdrawn)
    try:
        scorer.require(layout)
    except ModelRejected as error:
        _log.warning("champion.of_another_layout", model_version=version, detail=str(error))
        return Champion(version, None, withdrawn=withdrawn)
    return Champion(version, scorer.score(rows, layout), withdrawn=withdrawn)
