"""Whether served features are those that training would compute: pure functions.

A sample of served vectors is compared with the batch form over the same log: each user's transactions in the order of
the log, the terminals' activity and what was reported. Amount and raw attributes are taken from the vector itself, so
they are not judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from centinela.features.backfill import build_features
from centinela.features.layout import FeatureLayout
from centinela.features.spec import LONGEST_MS, TERMINAL_DELAY_MS
from centinela.times import DAY_MS
from centinela_trainer.skew.report import Example, FeatureSkew, SkewReport

Matrix = NDArray[np.float64]
REACH_DAYS = (LONGEST_MS + TERMINAL_DELAY_MS) // DAY_MS
"""No window begins earlier than this many days before its transaction."""
TOLERANCE = 1e-9
BEFORE_ARCHIVE = "window begins before the archive"
MOVED = "user moved between partitions"
OTHER_LAYOUT = "unknown feature set"
_SINCE = "user_seconds_since_last"
_MOST_EXAMPLES = 10


def recompute(
    history: pd.DataFrame, labels: pd.DataFrame, layout: FeatureLayout, transaction_ids: Sequence[str]
) -> Matrix:
    """The features of *transaction_ids* by the batch form, shape (n, len(layout.names)).

    Args:
        history: In log order, each transaction once: the whole history of their users, and of their terminals all that
            a window reaches.
        labels: Reports on the transactions of *history*, in log order.
    """
    features = build_features(history, labels, layout, order="log")
    at = pd.Index(history["transaction_id"]).get_indexer(pd.Index(transaction_ids))
    if (at < 0).any():
        raise ValueError("a sampled transaction is missing in its own history")
    matrix: Matrix = features.to_numpy(np.float64)[at]
    return matrix


def differing(served: Matrix, recomputed: Matrix) -> NDArray[np.bool_]:
    """Where values differ by more than ``TOLERANCE`` (relative above 1), or only one is missing; shape as both."""
    missing = np.isnan(served), np.isnan(recomputed)
    with np.errstate(invalid="ignore"):
        different = np.abs(served - recomputed) > TOLERANCE * np.maximum(1.0, np.abs(recomputed))
    return np.where(missing[0] | missing[1], missing[0] != missing[1], different)


def judged_features(layout: FeatureLayout) -> tuple[str, ...]:
    """The features that are computed rather than passed through."""
    return tuple(name for name in layout.names if name != "amount" and name not in layout.attributes)


def reasons_not_to_judge(
    occurred_ms: NDArray[np.int64], moved: NDArray[np.bool_], archive_from_ms: int | None
) -> NDArray[np.object_]:
    """Per row why it cannot be judged, None where it can.

    Args:
        occurred_ms: Event time of the sampled rows, shape (n,).
        moved: Whether the row's user appears in several partitions, whose order is unknown, shape (n,).
        archive_from_ms: The event time at which the archive begins; None where it holds the log from its beginning.
    """
    reasons = np.full(len(occurred_ms), None, dtype=object)
    reasons[moved] = MOVED
    if archive_from_ms is not None:
        reasons[occurred_ms - REACH_DAYS * DAY_MS < archive_from_ms] = BEFORE_ARCHIVE
    return reasons


def compare(
    ids: Sequence[str],
    origins: NDArray[np.object_],
    served: Matrix,
    recomputed: Matrix,
    layout: FeatureLayout,
    *,
    whole_log: bool,
) -> tuple[list[FeatureSkew], list[Example], int]:
    """Mismatches of rows that can be judged, by feature and origin; examples; and how many rows have one.

    Args:
        served, recomputed: Columns as ``layout.names``, shape (n, k).
        whole_log: False where a user's transactions may be older than the archive: then a first one in the archive
            proves nothing.
    """
    names = judged_features(layout)
    columns = [layout.names.index(name) for name in names]
    measured, expected = served[:, columns], recomputed[:, columns]
    differs = differing(measured, expected)
    if not whole_log:
        since = names.index(_SINCE)
        differs[np.isnan(expected[:, since]), since] = False
    by_feature = []
    for origin in sorted(set(origins.tolist())):
        rows = origins == origin
        for at, name in enumerate(names):
            wrong = rows & differs[:, at]
            gaps = np.abs(measured[wrong, at] - expected[wrong, at])
            by_feature.append(
                FeatureSkew(
                    feature=name,
                    origin=str(origin),
                    judged=int(rows.sum()),
                    mismatches=int(wrong.sum()),
                    largest=float(gaps.max()) if len(gaps) and not np.isnan(gaps).any() else None,
                )
            )
    examples = [
        Example(
            transaction_id=ids[row],
            origin=str(origins[row]),
            feature=names[at],
            served=_value(measured[row, at]),
            recomputed=_value(expected[row, at]),
        )
        for row, at in np.argwhere(differs)[:_MOST_EXAMPLES].tolist()
    ]
    return by_feature, examples, int(differs.any(axis=1).sum())


def merged(
    as_of: datetime,
    sampled: int,
    not_judged: Mapping[str, int],
    parts: Sequence[tuple[list[FeatureSkew], list[Example], int]],
) -> SkewReport:
    """One report of the *parts*, one for each layout."""
    judged: dict[str, int] = {}
    sums: dict[tuple[str, str], FeatureSkew] = {}
    for features, _, _ in parts:
        for origin, count in {one.origin: one.judged for one in features}.items():
            judged[origin] = judged.get(origin, 0) + count
        for one in features:
            key = one.feature, one.origin
            known = sums.get(key)
            sums[key] = (
                one
                if known is None
                else FeatureSkew(
                    feature=one.feature,
                    origin=one.origin,
                    judged=known.judged + one.judged,
                    mismatches=known.mismatches + one.mismatches,
                    largest=max((v for v in (known.largest, one.largest) if v is not None), default=None),
                )
            )
    return SkewReport(
        as_of=as_of,
        sampled=sampled,
        judged=judged,
        not_judged=dict(not_judged),
        rows_differing=sum(rows for _, _, rows in parts),
        features=tuple(sums.values()),
        examples=tuple(example for _, examples, _ in parts for example in examples)[:_MOST_EXAMPLES],
    )


def _value(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
