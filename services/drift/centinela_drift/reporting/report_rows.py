"""Rows for a readable report: from the archive if it has enough, else expanded from the bins."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
from numpy.typing import NDArray

from centinela.events import PURCHASE
from centinela.model.bundle import Manifest
from centinela_drift.reporting.report_spec import ReportSpec

ROWS = 10_000
MIN_ROWS = 500
EXPANDED_ROWS = 2_000
REFERENCE_DAYS = 28
SCORE = "score"


class Samples(msgspec.Struct, frozen=True):
    """Rows to compare, with the same columns. ``source`` describes them in a sentence."""

    reference: pd.DataFrame
    recent: pd.DataFrame
    source: str


def samples(spec: ReportSpec) -> Samples:
    """Rows for *spec*: both sides from the archive, or both from bins, so that no difference is due to the method."""
    manifest = msgspec.json.decode(Path(spec.manifest).read_bytes(), type=Manifest)
    names = list(manifest.feature_names)
    folder = Path(spec.archive)
    since = spec.served_since
    reference = archived(folder, names, since - timedelta(days=REFERENCE_DAYS), since)
    recent = archived(folder, names, spec.report.start, spec.report.end, version=spec.report.model_version)
    if len(reference) >= MIN_ROWS and len(recent) >= MIN_ROWS:
        return Samples(
            reference,
            recent,
            f"Rows of the archive: {len(recent)} of the report's window; for comparison {len(reference)} of the"
            f" {REFERENCE_DAYS} days before version {spec.report.model_version} began to serve.",
        )
    counts = np.array(spec.recent, dtype=np.int64)
    expected = manifest.reference.count_matrix().astype(np.int64)
    if counts.size != expected.size:
        raise ValueError("the archive has too few rows, and the panes have no feature histograms")
    edges = manifest.reference.edges
    return Samples(
        expanded(names, edges, expected),
        expanded(names, edges, counts.reshape(expected.shape)),
        "The archive has too few rows: values are expanded from the panes' histograms, each at the middle of its bin."
        " Shares are exact; distributions within a bin and correlations are not.",
    )


def archived(
    folder: Path, names: Sequence[str], start: datetime, end: datetime, version: str | None = None
) -> pd.DataFrame:
    """Up to ``ROWS`` archived purchases of [start, end), columns *names*, the same sample every time; empty if there
    are none."""
    files = [
        str(path) for day in _days(start, end) for path in sorted((folder / f"day={day.isoformat()}").glob("*.parquet"))
    ]
    empty = pd.DataFrame(columns=list(names), dtype=np.float64)
    if not files:
        return empty
    rows = pads.dataset(files, format="parquet", schema=_schema(names))
    condition = (pads.field("occurred_at") >= pa.scalar(start)) & (pads.field("occurred_at") < pa.scalar(end))
    condition &= pads.field("kind").is_null() | (pads.field("kind") == PURCHASE)
    if version is not None:
        condition &= pads.field("model_version") == version
    frame = rows.to_table(columns=[*names, "transaction_id"], filter=condition).to_pandas()
    frame = frame.drop_duplicates("transaction_id")[list(names)]
    return frame.sample(ROWS, random_state=0) if len(frame) > ROWS else frame if len(frame) else empty


def expanded(names: Sequence[str], edges: Sequence[Sequence[float]], counts: NDArray[np.int64]) -> pd.DataFrame:
    """``EXPANDED_ROWS`` rows whose columns have the shares of *counts*, shape (features, bins + 1), missing values
    last."""
    return pd.DataFrame(
        {name: _column(np.array(inner), row) for name, inner, row in zip(names, edges, counts, strict=True)}
    )


def _column(inner: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    bins = len(counts) - 1
    gap = float(np.median(np.diff(inner))) if len(inner) > 1 else 1.0
    bounds = np.concatenate([[inner[0] - gap], inner, [inner[-1] + gap]]) if len(inner) else np.array([-0.5, 0.5])
    middles = np.full(bins + 1, np.nan)
    middles[: len(bounds) - 1] = (bounds[:-1] + bounds[1:]) / 2
    filled = np.cumsum(counts) / max(1, counts.sum()) * EXPANDED_ROWS
    return np.repeat(middles, np.diff(np.rint(filled).astype(np.int64), prepend=0))


def _schema(names: Sequence[str]) -> pa.Schema:
    instant = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            ("transaction_id", pa.string()),
            ("occurred_at", instant),
            ("model_version", pa.string()),
            ("kind", pa.string()),
            *[(name, pa.float64()) for name in names],
        ]
    )


def _days(start: datetime, end: datetime) -> list[date]:
    first, last = start.astimezone(UTC).date(), end.astimezone(UTC).date()
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
