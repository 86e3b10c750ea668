"""Reference bins: equal shares, heavy values alone, nothing lost."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from centinela.model.reference import BINS, SCORE_BINS, histogram, quantile_edges, reference_edges, score_histogram

RANDOM = np.random.default_rng(3)


def bins_of(column: np.ndarray, edges: np.ndarray) -> list[int]:
    counts: list[int] = histogram(column.reshape(-1, 1), edges.reshape(1, -1))[0].tolist()
    return counts


@pytest.mark.parametrize(
    "column",
    [
        RANDOM.normal(size=20_000),
        np.exp(3 * RANDOM.normal(size=20_000)),
        RANDOM.pareto(0.5, size=20_000),
    ],
    ids=["normal", "lognormal", "pareto"],
)
def test_a_column_without_heavy_values_is_cut_into_equal_shares(column: np.ndarray) -> None:
    counts = bins_of(column, quantile_edges(column))
    assert counts == pytest.approx([2_000] * BINS + [0], abs=1)


def test_a_constant_column_parts_what_is_below_and_above_it() -> None:
    edges = quantile_edges(np.full(100, 3.0))
    assert bins_of(np.full(100, 3.0), edges)[1] == 100
    assert bins_of(np.array([2.999, 3.0, 3.0, 3.001]), edges)[:3] == [1, 2, 1]


def test_a_heavy_value_has_a_bin_of_its_own_closed_on_both_sides() -> None:
    column = np.concatenate([np.zeros(7_000), RANDOM.uniform(1, 2, size=3_000)])
    edges = quantile_edges(column)
    at_zero = np.searchsorted(edges, 0.0, side="right")
    assert bins_of(column, edges)[at_zero] == 7_000
    assert bins_of(np.array([-1e-9, 1e-9]), edges)[at_zero] == 0


def test_a_flag_is_parted_into_its_two_values() -> None:
    column = np.repeat([0.0, 1.0], [90, 10])
    assert [count for count in bins_of(column, quantile_edges(column)) if count] == [90, 10]


def test_more_heavy_values_than_room_still_fit() -> None:
    column = np.repeat(np.arange(10.0), 10)
    assert bins_of(column, quantile_edges(column)) == [10] * 10 + [0]
    crowded = np.concatenate([column, np.arange(0.25, 9, 0.5)])
    assert sum(bins_of(crowded, quantile_edges(crowded))) == len(crowded)


def test_missing_values_are_counted_apart_and_shape_no_edge() -> None:
    column = np.concatenate([RANDOM.normal(size=1_000), np.full(500, np.nan)])
    edges = quantile_edges(column)
    assert np.array_equal(edges, quantile_edges(column[:1_000]))
    assert bins_of(column, edges)[-1] == 500


@pytest.mark.parametrize("column", [np.full(5, np.nan), np.empty(0)])
def test_a_column_without_values_has_no_edges(column: np.ndarray) -> None:
    edges = quantile_edges(column)
    assert np.isinf(edges).all()
    assert bins_of(np.array([0.0, np.nan]), edges) == [1] + [0] * (BINS - 1) + [1]


@given(
    arrays(
        np.float64,
        st.integers(1, 60),
        elements=st.one_of(st.just(float("nan")), st.sampled_from([0.0, 1.0]), st.floats(-1e6, 1e6)),
    )
)
def test_edges_ascend_and_every_row_falls_into_exactly_one_bin(column: np.ndarray) -> None:
    edges = quantile_edges(column)
    inner = edges[np.isfinite(edges)]
    assert (np.diff(inner) > 0).all()

    counts = bins_of(column, edges)
    assert sum(counts) == len(column)
    bounds = [-np.inf, *inner, np.inf]
    by_hand = [int(np.sum((column >= low) & (column < high))) for low, high in pairwise(bounds)]
    assert counts[: len(by_hand)] == by_hand
    assert counts[-1] == np.isnan(column).sum()


def test_histograms_have_a_row_per_feature_and_add_up() -> None:
    matrix = RANDOM.normal(size=(400, 3))
    matrix[::5, 1] = np.nan
    edges = reference_edges(matrix)
    whole = histogram(matrix, edges)

    assert (whole.shape, whole.dtype) == ((3, BINS + 1), np.dtype(np.uint32))
    assert whole.sum(axis=1).tolist() == [400] * 3
    assert np.array_equal(histogram(matrix[:123], edges) + histogram(matrix[123:], edges), whole)
    assert histogram(matrix[:0], edges).sum() == 0


def test_a_matrix_with_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="3 features"):
        histogram(np.zeros((4, 2)), np.zeros((3, BINS - 1)))
    with pytest.raises(ValueError, match="at least 3"):
        quantile_edges(np.zeros(4), 2)


def test_scores_fall_into_fifty_equal_bins_of_which_the_last_holds_one() -> None:
    counts = score_histogram(np.array([0.0, 0.0199, 0.02, 0.5, 0.999, 1.0, np.nan]))
    assert len(counts) == SCORE_BINS
    assert {at: int(count) for at, count in enumerate(counts) if count} == {0: 2, 1: 1, 25: 1, 49: 2}
