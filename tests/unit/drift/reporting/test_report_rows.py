"""Rows of a readable report: from the archive where it can give both sides, else from bins, and the report says
which."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from centinela.events import DriftReported
from centinela.model.reference import histogram
from centinela_drift.reporting.report_rows import EXPANDED_ROWS, expanded, samples
from centinela_drift.reporting.report_spec import ReportSpec
from tests.support.drift_world import FEATURES, START, World

NEW_VERSION_SINCE = START + timedelta(days=3)
WINDOW = START + timedelta(days=5)


@pytest.fixture
def spec(tmp_path: Path) -> ReportSpec:
    manifest = World().manifest()
    (tmp_path / "1.json").write_bytes(msgspec.json.encode(manifest))
    report = DriftReported(
        report_id="drift-1",
        model_name="FraudDetector",
        model_version="1",
        start=WINDOW,
        end=WINDOW + timedelta(days=1),
        count=600,
        alert_rate=0.05,
        state="alarm",
        findings=(),
        retrain="requested",
        reason="average precision fell",
    )
    return ReportSpec(
        report=report,
        manifest=str(tmp_path / "1.json"),
        archive=str(tmp_path / "predictions"),
        served_since=NEW_VERSION_SINCE,
        recent=manifest.reference.count_matrix().ravel().tolist(),
        html=str(tmp_path / "r.html"),
        json=str(tmp_path / "r.json"),
    )


def archive(
    folder: Path, start: datetime, rows: int, amount: float, version: str | None, kinds: list[str] | None = None
) -> None:
    times = [start + timedelta(seconds=i) for i in range(rows)]
    table = pa.table(
        {
            "transaction_id": [f"{start:%d}-{i}" for i in range(rows)],
            "occurred_at": pa.array(times, pa.timestamp("us", tz="UTC")),
            "model_version": pa.array([version] * rows, pa.string()),
            **{name: np.full(rows, amount) for name in FEATURES},
            **({"kind": kinds} if kinds else {}),
        }
    )
    day = folder / f"day={start:%Y-%m-%d}"
    day.mkdir(parents=True)
    pq.write_table(table, day / "predictions-0-000-999.parquet")
    pq.write_table(table, day / "predictions-0-000-999-again.parquet")


def test_both_sides_come_from_the_archive_where_it_has_them_each_row_once(spec: ReportSpec) -> None:
    archive(Path(spec.archive), START + timedelta(days=1), 700, 1.0, None)
    archive(Path(spec.archive), START + timedelta(days=4), 700, 2.0, "1")
    archive(Path(spec.archive), WINDOW, 602, 3.0, "1", ["refund", "reversal"] + ["purchase"] * 600)
    rows = samples(spec)
    assert (len(rows.reference), len(rows.recent)) == (700, 600)
    assert set(rows.reference["amount"]) == {1.0}
    assert set(rows.recent["amount"]) == {3.0}
    assert rows.source.startswith("Rows of the archive: 600")


def test_with_one_side_missing_both_are_expanded_from_bins_and_it_is_said(spec: ReportSpec) -> None:
    archive(Path(spec.archive), WINDOW, 600, 3.0, "1")
    rows = samples(spec)
    assert len(rows.reference) == len(rows.recent) == EXPANDED_ROWS
    assert rows.reference.equals(rows.recent)
    assert "expanded from the panes' histograms" in rows.source


def test_expanded_rows_fall_into_the_bins_they_came_from_in_the_same_shares() -> None:
    frozen = World().manifest().reference
    counts = frozen.count_matrix().astype(np.int64)
    counts[2, -1] = counts[2, :-1].sum()
    rows = expanded(FEATURES, frozen.edges, counts)
    again = histogram(rows.to_numpy(), frozen.edge_matrix()).astype(float)
    assert np.allclose(
        again / again.sum(axis=1, keepdims=True), counts / counts.sum(axis=1, keepdims=True), atol=2 / EXPANDED_ROWS
    )


def test_without_rows_and_without_histograms_there_is_no_report(spec: ReportSpec) -> None:
    with pytest.raises(ValueError, match="no feature histograms"):
        samples(msgspec.structs.replace(spec, recent=[]))
