"""Detection against independent formulas, and on the shapes that fool simpler statistics."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest, chi2_contingency, entropy, norm

from centinela.model.reference import SCORE_BINS, histogram, reference_edges
from centinela_drift.decision.detection import (
    Limits,
    Reference,
    alert_rate_shift,
    data_quality,
    feature_drift,
    jensen_shannon,
    merge_sparse,
    psi,
    psi_chance_limit,
    score_drift,
    wilson_interval,
)
from centinela_drift.decision.windows import Bucket

LIMITS = Limits()


def reference_of(
    columns: dict[str, NDArray[np.float64]], alert_rate: float = 0.01
) -> tuple[Reference, NDArray[np.float64]]:
    matrix = np.column_stack(list(columns.values()))
    edges = reference_edges(matrix)
    counts = histogram(matrix, edges).astype(np.int64)
    return Reference("1", tuple(columns), counts, np.full(SCORE_BINS, 100), alert_rate, 0.8), edges


def recent_of(columns: list[NDArray[np.float64]], edges: NDArray[np.float64], alerts: int = 0) -> Bucket:
    matrix = np.column_stack(columns)
    return Bucket(
        len(matrix), alerts, len(matrix), 0, np.full(SCORE_BINS, 10), histogram(matrix, edges).astype(np.int64).ravel()
    )


def test_psi_is_the_sum_of_both_divergences_that_scipy_computes() -> None:
    p, q = np.array([100, 250, 400, 50, 200]), np.array([30, 20, 25, 15, 10])
    assert psi(p, q) == pytest.approx(entropy(p, q) + entropy(q, p))


def test_psi_of_an_empty_bin_is_finite_and_of_an_empty_window_nothing() -> None:
    assert 0.1 < psi(np.array([500, 500]), np.array([0, 100])) < 10
    assert psi(np.array([500, 500]), np.array([0, 0])) == 0.0


def test_the_chance_limit_is_exceeded_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    shares = np.full(10, 0.1)
    reference = rng.multinomial(20_000, shares, size=4_000)
    recent = rng.multinomial(1_000, shares, size=4_000)
    exceeded = np.mean([psi(p, q) > psi_chance_limit(p, q, 0.05) for p, q in zip(reference, recent, strict=True)])
    assert binomtest(round(exceeded * 4_000), 4_000, 0.05).pvalue > 0.001


def test_the_chance_limit_agrees_with_the_two_sample_chi_square_test_near_it() -> None:
    p, q = np.array([10_000] * 10), np.array([1_000, 1_050, 960, 1_010, 990, 1_100, 900, 1_020, 970, 1_000])
    scaled = psi(p, q) / (1 / p.sum() + 1 / q.sum())
    assert scaled == pytest.approx(chi2_contingency(np.vstack([p, q])).statistic, rel=0.05)


def test_jensen_shannon_is_scipys() -> None:
    p, q = np.array([100, 0, 400, 50]), np.array([3, 20, 0, 15])
    assert jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, base=2))


def test_jensen_shannon_of_nearly_equal_histograms_is_a_number() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2_000):
        p = rng.integers(1, 10**9, 8)
        assert 0.0 <= jensen_shannon(p, p + (np.arange(8) == 3)) < 1e-3


@pytest.mark.parametrize(("hits", "trials"), [(17, 1_200), (0, 50), (50, 50), (1, 3)])
def test_the_wilson_interval_ends_where_the_share_is_z_deviations_away(hits: int, trials: int) -> None:
    z = norm.isf(0.025)
    for bound in wilson_interval(hits, trials, 0.95):
        deviation = np.sqrt(bound * (1 - bound) / trials)
        assert abs(hits / trials - bound) == pytest.approx(z * deviation, abs=1e-9)


def test_a_shift_in_a_skewed_column_is_found_that_equal_width_bins_miss() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.lognormal(3.0, 1.5, 50_000), rng.lognormal(3.6, 1.5, 5_000)
    before[0] = after[0] = 1e6
    reference, edges = reference_of({"amount": before})
    [finding] = feature_drift(reference, recent_of([after], edges), LIMITS)
    assert finding.breached
    assert finding.value > 0.1

    wide = np.linspace(0, 1e6, 11)
    assert psi(np.histogram(before, wide)[0], np.histogram(after, wide)[0]) < 0.01


def test_a_column_that_is_nearly_always_zero_does_not_alarm_by_itself() -> None:
    rng = np.random.default_rng(2)
    reference, edges = reference_of({"terminal_risk_7d": np.where(rng.random(50_000) < 0.97, 0.0, rng.random(50_000))})
    recent = recent_of([np.where(rng.random(5_000) < 0.97, 0.0, rng.random(5_000))], edges)
    [finding] = feature_drift(reference, recent, LIMITS)
    assert not finding.breached
    assert data_quality(reference, recent, LIMITS) == ()


def test_a_large_index_on_few_transactions_is_no_drift_and_a_sure_but_small_one_neither() -> None:
    rng = np.random.default_rng(3)
    reference, edges = reference_of({"x": rng.normal(size=50_000)})
    [few] = feature_drift(reference, recent_of([rng.normal(size=30)], edges), LIMITS)
    assert few.value >= LIMITS.psi
    assert not few.significant
    assert not few.breached
    [small] = feature_drift(reference, recent_of([rng.normal(0.1, size=50_000)], edges), LIMITS)
    assert small.significant
    assert not small.breached


def test_missing_values_are_a_fault_of_the_feed_and_no_drift() -> None:
    rng = np.random.default_rng(4)
    reference, edges = reference_of({"v1": rng.normal(size=50_000), "v2": rng.normal(size=50_000)})
    hole = np.where(rng.random(5_000) < 0.3, np.nan, rng.normal(size=5_000))
    recent = recent_of([hole, rng.normal(size=5_000)], edges)
    [fault] = data_quality(reference, recent, LIMITS)
    assert (fault.statistic, fault.feature) == ("data_quality.missing", "v1")
    assert fault.value == pytest.approx(np.isnan(hole).mean())
    assert not any(f.breached for f in feature_drift(reference, recent, LIMITS))


def test_a_column_that_stands_still_is_a_fault_of_the_feed() -> None:
    rng = np.random.default_rng(5)
    reference, edges = reference_of({"v1": rng.normal(size=50_000)})
    [fault] = data_quality(reference, recent_of([np.zeros(5_000)], edges), LIMITS)
    assert (fault.statistic, fault.feature) == ("data_quality.stuck", "v1")


def test_a_column_that_outgrew_its_reference_is_drift_and_no_fault_of_the_feed() -> None:
    rng = np.random.default_rng(6)
    reference, edges = reference_of({"terminal_count_30d": rng.poisson(4, size=50_000).astype(float)})
    grown = recent_of([rng.poisson(60, size=5_000).astype(float)], edges)
    assert data_quality(reference, grown, LIMITS) == ()
    [drift] = feature_drift(reference, grown, LIMITS)
    assert drift.breached


@pytest.mark.parametrize(
    ("alerts", "count", "breached"),
    [
        (100, 10_000, False),
        (190, 10_000, False),
        (260, 10_000, True),
        (15, 10_000, True),
        (3, 100, False),
        (0, 200, False),
        (0, 3_000, True),
    ],
)
def test_an_alert_rate_counts_as_shifted_only_when_its_whole_interval_is_beyond_the_ratio(
    alerts: int, count: int, breached: bool
) -> None:
    reference = Reference("1", (), np.zeros((0, 2), np.int64), np.zeros(SCORE_BINS, np.int64), 0.01, None)
    finding = alert_rate_shift(reference, Bucket(count, alerts), LIMITS)
    assert finding is not None
    assert finding.breached is breached


def test_a_reference_without_alerts_gives_no_ratio() -> None:
    reference = Reference("1", (), np.zeros((0, 2), np.int64), np.zeros(SCORE_BINS, np.int64), None, None)
    assert alert_rate_shift(reference, Bucket(1_000, 10), LIMITS) is None


def test_joined_bins_keep_every_count_and_a_least_share() -> None:
    reference, recent = np.array([9_000, 500, 30, 0, 0, 20, 150, 40]), np.array([900, 60, 0, 4, 0, 0, 9, 20])
    p, q = merge_sparse(reference, recent, 0.01)
    assert p.sum() == reference.sum()
    assert q.sum() == recent.sum()
    assert p.min() >= 0.01 * reference.sum()
    assert len(p) == 3


def test_a_fuller_score_tail_is_score_drift_though_nearly_all_scores_are_low() -> None:
    reference_scores, recent_scores = np.zeros(SCORE_BINS, np.int64), np.zeros(SCORE_BINS, np.int64)
    reference_scores[[0, 1, 40, 49]] = 98_000, 800, 700, 500
    recent_scores[[0, 1, 40, 49]] = 8_900, 100, 500, 500
    reference = Reference("1", (), np.zeros((0, 2), np.int64), reference_scores, 0.01, None)
    decides, informs = score_drift(reference, Bucket(10_000, 0, 0, 0, recent_scores), LIMITS)
    assert decides.statistic == "score_psi"
    assert decides.breached
    assert not informs.breached


def test_panes_without_feature_histograms_give_no_feature_findings() -> None:
    reference, _ = reference_of({"x": np.random.default_rng(0).normal(size=1_000)})
    assert feature_drift(reference, Bucket(500, 5), LIMITS) == ()
    assert data_quality(reference, Bucket(500, 5), LIMITS) == ()


def test_a_flag_that_stands_still_for_a_day_is_no_fault() -> None:
    weekend = np.tile(np.repeat([1.0, 0.0], [2_000, 5_000]), 7)
    reference, edges = reference_of({"is_weekend": weekend})
    for value in (0.0, 1.0):
        assert data_quality(reference, recent_of([np.full(3_000, value)], edges), LIMITS) == ()
