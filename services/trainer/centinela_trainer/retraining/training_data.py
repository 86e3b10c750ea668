"""What a request trains on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import structlog

from centinela.events import RetrainRequested
from centinela.features.layout import FeatureLayout
from centinela_trainer.archive.reader import ArchiveReader
from centinela_trainer.params import TrainParams
from centinela_trainer.training.dataset import Dataset, Floats, assemble, immature
from centinela_trainer.training.feature_source import read_features
from centinela_trainer.training.fit import NotEnoughData

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The mature transactions, and ``recent``: rows too young to have labels, in the layout's columns."""

    layout: FeatureLayout
    dataset: Dataset
    recent: Floats


def read_training_data(
    reader: ArchiveReader, request: RetrainRequested, params: TrainParams, maturity: timedelta
) -> TrainingData:
    """The transactions of the window that ends *maturity* before the request's ``as_of``.

    Args:
        maturity: Age at which a transaction without a fraud label counts as genuine.

    Raises:
        NotEnoughData: The archive holds nothing up to then.
        DependencyUnavailable: The archive changed while it was read.
    """
    feature_set = reader.feature_set(request.as_of)
    if feature_set is None:
        raise NotEnoughData(f"the archive holds no transaction up to {request.as_of.isoformat()}")
    layout = FeatureLayout.parse(feature_set)
    window = timedelta(days=params.window_days)
    start = request.as_of - maturity - window
    predictions = read_features(reader, layout, start, request.as_of, params.features)
    labels = reader.labels(start, request.as_of)
    dataset = assemble(predictions, labels, layout.names, as_of=request.as_of, maturity=maturity, window=window)
    _log.info(
        "dataset.assembled",
        rows=len(dataset),
        frauds=int(dataset.is_fraud.sum()),
        predictions=len(predictions),
        labels=len(labels),
    )
    return TrainingData(layout, dataset, immature(predictions, layout.names, as_of=request.as_of, maturity=maturity))
