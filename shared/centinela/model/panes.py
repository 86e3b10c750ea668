"""Feature panes: what the predictor reports to the drift service of each committed batch, mergeable by addition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centinela.errors import InvalidRecord
from centinela.events import FeaturePane, Variant
from centinela.model.reference import SCORE_BINS, histogram, score_histogram
from centinela.times import HOUR_MS, from_ms, to_ms

PANE_ROW = np.dtype([("id", "<u8"), ("user", "<u8"), ("time", "<i8"), ("score", "<f4"), ("alert", "u1")])
"""One scored transaction: hashes of its id and of its user (``centinela.features.keys``), event time (ms), score, 1
where declined. 29 bytes."""

PANE_WIDTH_MS = 6 * HOUR_MS
"""Event time covered by a pane. Reports fall on its multiples."""

MAX_PANE_ROWS = 16_384
"""Rows of one pane at most, so that its record stays under a megabyte; a larger batch gives more panes."""

PaneRows = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class PaneModel:
    """A model as panes see it.

    Args:
        version: Version in the registry.
        variant: Role in which it scored.
        columns: Position of each of the model's features in the batch's matrix, shape (features,), in model order.
        edges: The bundle's frozen edges, shape (features, bins - 1) (``Manifest.reference.edge_matrix()``); None where
            the bundle is not at hand (a verdict adopted from a replica that serves another version): such panes have no
            feature histograms.
    """

    version: str
    variant: Variant
    columns: NDArray[np.intp]
    edges: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class Pane:
    """A pane decoded: ``rows`` of ``PANE_ROW``; ``histograms`` flat, features x bins, empty where the pane has none."""

    event: FeaturePane
    start_ms: int
    watermark_ms: int
    rows: PaneRows
    histograms: NDArray[np.uint32]
    scores: NDArray[np.uint32]


def pane_rows(
    ids: NDArray[np.uint64],
    users: NDArray[np.uint64],
    times_ms: NDArray[np.int64],
    scores: NDArray[np.float64],
    alerts: NDArray[np.bool_],
) -> PaneRows:
    """Rows of ``PANE_ROW`` from columns of shape (n,).

    *ids* and *users* are ``hash_ids`` of ``centinela.features.keys``; a missing user is ``MISSING_ID``.
    """
    rows = np.empty(len(ids), dtype=PANE_ROW)
    for name, column in zip(PANE_ROW.names or (), (ids, users, times_ms, scores, alerts), strict=True):
        rows[name] = column
    return rows


def build_panes(
    rows: PaneRows,
    matrix: NDArray[np.float64],
    model_of: NDArray[np.intp],
    models: Sequence[PaneModel],
    *,
    partition: int,
    watermark_ms: int,
    width_ms: int = PANE_WIDTH_MS,
) -> list[FeaturePane]:
    """The panes of one scored batch: one per event-time bucket and model (more where a bucket exceeds
    ``MAX_PANE_ROWS``).

    Args:
        rows: The batch, shape (n,), see ``pane_rows``.
        matrix: Served features, shape (n, columns of the layout), missing values NaN.
        model_of: Per row the index into *models*, shape (n,); -1 where no model scored it (history, duplicates): in no
            pane.
        models: The models that scored rows of this batch.
        partition: Source partition.
        watermark_ms: Greatest event time seen of that partition, this batch included.
        width_ms: Event time per pane.

    Returns:
        Panes by model, then time; each row with a model is in exactly one.

    Raises:
        ValueError: Shapes differ.
    """
    if not len(rows) == len(matrix) == len(model_of):
        raise ValueError(f"{len(rows)} rows, {len(matrix)} feature vectors, {len(model_of)} models")
    panes = []
    buckets = rows["time"] // width_ms
    for index, model in enumerate(models):
        mine = np.flatnonzero(model_of == index)
        for bucket, members in _by_bucket(buckets, mine):
            panes.append(
                _pane(rows[members], matrix, members, model, bucket * width_ms, width_ms, partition, watermark_ms)
            )
    return panes


def read_pane(event: FeaturePane) -> Pane:
    """The arrays of a pane (read-only views).

    Raises:
        InvalidRecord: ``invalid_pane``: a field has no whole number of items, or the counts contradict each other.
    """
    try:
        rows = np.frombuffer(event.transactions, dtype=PANE_ROW)
        histograms = np.frombuffer(event.histograms, dtype="<u4")
        scores = np.frombuffer(event.score_histogram, dtype="<u4")
    except ValueError as error:
        raise InvalidRecord("invalid_pane", str(error)) from error
    if len(scores) != SCORE_BINS:
        raise InvalidRecord("invalid_pane", f"score_histogram has {len(scores)} bins instead of {SCORE_BINS}")
    if len(rows) != event.count or int(scores.sum()) != event.count:
        raise InvalidRecord("invalid_pane", f"count is {event.count}, rows {len(rows)}, scores {int(scores.sum())}")
    if not 0 <= event.alerts <= event.count:
        raise InvalidRecord("invalid_pane", f"alerts is {event.alerts} of {event.count}")
    start = to_ms(event.start)
    times = rows["time"]
    if len(times) and not (start <= times.min() and times.max() < to_ms(event.end)):
        raise InvalidRecord("invalid_pane", "a transaction is outside start and end")
    return Pane(event, start, to_ms(event.watermark), rows, histograms, scores)


def _by_bucket(buckets: NDArray[np.int64], members: NDArray[np.intp]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    of_members = buckets[members]
    for bucket in np.unique(of_members).tolist():
        together = members[of_members == bucket]
        for first in range(0, len(together), MAX_PANE_ROWS):
            yield bucket, together[first : first + MAX_PANE_ROWS]


def _pane(
    rows: PaneRows,
    matrix: NDArray[np.float64],
    members: NDArray[np.intp],
    model: PaneModel,
    start_ms: int,
    width_ms: int,
    partition: int,
    watermark_ms: int,
) -> FeaturePane:
    counts = b""
    if model.edges is not None:
        counts = histogram(matrix[np.ix_(members, model.columns)], model.edges).astype("<u4").tobytes()
    return FeaturePane(
        partition=partition,
        start=from_ms(start_ms),
        end=from_ms(start_ms + width_ms),
        model_version=model.version,
        variant=model.variant,
        count=len(rows),
        alerts=int(rows["alert"].sum()),
        watermark=from_ms(watermark_ms),
        histograms=counts,
        score_histogram=score_histogram(rows["score"].astype(np.float64)).astype("<u4").tobytes(),
        transactions=rows.tobytes(),
    )
