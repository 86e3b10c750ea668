"""Panes: every scored row once, in the right bucket, with counts that add up."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from centinela.codec import MAX_RECORD_BYTES, Decoder
from centinela.errors import InvalidRecord
from centinela.events import FeaturePane, encode
from centinela.model.panes import (
    MAX_PANE_ROWS,
    PANE_WIDTH_MS,
    PaneModel,
    PaneRows,
    build_panes,
    pane_rows,
    read_pane,
)
from centinela.model.reference import SCORE_BINS, histogram, reference_edges

START = 1_772_323_200_000 - 1_772_323_200_000 % PANE_WIDTH_MS


def batch(n: int, span_ms: int, seed: int = 3) -> tuple[PaneRows, NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n, 5))
    matrix[rng.random((n, 5)) < 0.1] = np.nan
    scores = rng.random(n)
    rows = pane_rows(
        rng.integers(1, 2**63, n).astype(np.uint64),
        rng.integers(1, 50, n).astype(np.uint64),
        START + rng.integers(0, span_ms, n),
        scores,
        scores > 0.9,
    )
    return rows, matrix, reference_edges(rng.normal(size=(5_000, 2)))


def test_every_scored_row_is_in_one_pane_of_its_bucket_and_model() -> None:
    rows, matrix, edges = batch(3_000, 3 * PANE_WIDTH_MS)
    model_of = np.random.default_rng(1).integers(-1, 2, 3_000)
    models = [
        PaneModel("7", "champion", np.array([4, 1]), edges),
        PaneModel("8", "challenger", np.array([0, 2]), edges),
    ]
    panes = [read_pane(p) for p in build_panes(rows, matrix, model_of, models, partition=2, watermark_ms=START + 5)]
    assert len(panes) == 6
    for index, model in enumerate(models):
        mine = [p for p in panes if p.event.model_version == model.version]
        together = np.concatenate([p.rows for p in mine])
        assert sorted(together["id"]) == sorted(rows["id"][model_of == index])
        summed = sum(p.histograms.reshape(2, -1).astype(int) for p in mine)
        assert np.array_equal(summed, histogram(matrix[model_of == index][:, model.columns], edges))
    for pane in panes:
        assert np.all(pane.rows["time"] // PANE_WIDTH_MS * PANE_WIDTH_MS == pane.start_ms)
        assert pane.event.alerts == pane.rows["alert"].sum()
        assert pane.watermark_ms == START + 5
        counts = np.histogram(pane.rows["score"].astype(float), bins=SCORE_BINS, range=(0, 1))[0]
        assert np.abs(pane.scores.astype(int) - counts).sum() <= 2


def test_a_pane_survives_the_wire() -> None:
    rows, matrix, edges = batch(100, PANE_WIDTH_MS)
    [pane] = build_panes(
        rows,
        matrix,
        np.zeros(100, np.intp),
        [PaneModel("7", "champion", np.array([0, 1]), edges)],
        partition=0,
        watermark_ms=START,
    )
    again = read_pane(Decoder(FeaturePane).decode(encode(pane)))
    assert np.array_equal(again.rows, rows)
    assert again.event == pane


def test_a_model_whose_bundle_is_not_at_hand_gives_panes_without_histograms() -> None:
    rows, matrix, _ = batch(10, PANE_WIDTH_MS)
    [pane] = build_panes(
        rows,
        matrix,
        np.zeros(10, np.intp),
        [PaneModel("6", "champion", np.array([], np.intp), None)],
        partition=0,
        watermark_ms=START,
    )
    assert len(read_pane(pane).histograms) == 0
    assert read_pane(pane).scores.sum() == 10


def test_a_huge_batch_gives_records_that_fit() -> None:
    n = 2 * MAX_PANE_ROWS + 1
    rows, matrix, edges = batch(n, PANE_WIDTH_MS)
    panes = build_panes(
        rows,
        matrix,
        np.zeros(n, np.intp),
        [PaneModel("7", "champion", np.array([0, 1]), edges)],
        partition=0,
        watermark_ms=START,
    )
    assert sum(p.count for p in panes) == n
    assert max(len(encode(p)) for p in panes) < MAX_RECORD_BYTES


def test_history_is_in_no_pane() -> None:
    rows, matrix, _ = batch(10, PANE_WIDTH_MS)
    assert build_panes(rows, matrix, np.full(10, -1), [], partition=0, watermark_ms=START) == []


def test_columns_of_different_lengths_are_refused() -> None:
    rows, matrix, _ = batch(10, PANE_WIDTH_MS)
    with pytest.raises(ValueError, match="10 rows, 9 feature vectors"):
        build_panes(rows, matrix[:9], np.zeros(10, np.intp), [], partition=0, watermark_ms=START)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count", 11),
        ("alerts", 11),
        ("transactions", b"12345"),
        ("histograms", b"123"),
        ("score_histogram", b"\0" * 196),
        ("transactions", b""),
        ("score_histogram", b"\0" * 200),
    ],
)
def test_a_pane_that_contradicts_itself_is_refused(field: str, value: object) -> None:
    rows, matrix, edges = batch(10, PANE_WIDTH_MS)
    [pane] = build_panes(
        rows,
        matrix,
        np.zeros(10, np.intp),
        [PaneModel("7", "champion", np.array([0, 1]), edges)],
        partition=0,
        watermark_ms=START,
    )
    with pytest.raises(InvalidRecord, match="invalid_pane"):
        read_pane(msgspec.structs.replace(pane, **{field: value}))


def test_a_row_outside_its_pane_is_refused() -> None:
    rows, matrix, edges = batch(10, PANE_WIDTH_MS)
    [pane] = build_panes(
        rows,
        matrix,
        np.zeros(10, np.intp),
        [PaneModel("7", "champion", np.array([0, 1]), edges)],
        partition=0,
        watermark_ms=START,
    )
    with pytest.raises(InvalidRecord, match="outside"):
        read_pane(msgspec.structs.replace(pane, end=pane.start))
