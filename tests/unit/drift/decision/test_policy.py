"""The policy as a table of reports: what is requested, what is suppressed, and why."""

from __future__ import annotations

import pytest

from centinela.events import Finding
from centinela.model.metrics import average_precision_interval
from centinela_drift.decision.performance import Measured
from centinela_drift.decision.policy import (
    Decision,
    Observation,
    PolicySettings,
    PolicyState,
    decide,
    deterministic_id,
    training_completed,
)

DAY = 86_400_000
SETTINGS = PolicySettings(
    min_sample=500,
    min_frauds=20,
    ap_fall_limit=0.1,
    confirm_performance=2,
    confirm_alert_rate=3,
    cooldown_ms=7 * DAY,
    request_timeout_ms=5 * DAY,
)
SEASON = Finding(statistic="psi", feature="user_count_7d", value=0.94, limit=0.1, breached=True, significant=True)
FAULT = Finding(statistic="data_quality.missing", feature="v3", value=0.4, limit=0.05, breached=True, significant=True)


def mature(value: float | None, *, count: int = 20_000, frauds: int = 150) -> Measured:
    if value is None:
        return Measured(count, 0)
    low, high = average_precision_interval(value, frauds)
    return Measured(count, frauds, value, low, high, 0.2)


def alert_rate(ratio: float) -> Finding:
    return Finding(
        statistic="alert_rate_ratio", value=ratio, limit=2.0, breached=ratio >= 2 or ratio <= 0.5, significant=True
    )


def observed(
    day: int,
    ap: float | None = 0.76,
    *findings: Finding,
    count: int = 5_000,
    frauds: int = 150,
    baseline: float | None = 0.76,
    version: str = "1",
    mature_start: int | None = None,
) -> Observation:
    start = (day - 14 if mature_start is None else mature_start) * DAY
    return Observation("FraudDetector", version, day * DAY, count, mature(ap, frauds=frauds), start, baseline, findings)


def run(*observations: Observation, state: PolicyState | None = None) -> tuple[PolicyState, list[Decision]]:
    state, decisions = state or PolicyState(), []
    for observation in observations:
        state, decision = decide(state, observation, SETTINGS)
        decisions.append(decision)
    return state, decisions


def outcomes(decisions: list[Decision]) -> list[tuple[str, str]]:
    return [(d.state, d.retrain) for d in decisions]


def test_a_fall_of_performance_is_asked_to_be_mended_once_it_is_confirmed() -> None:
    _, decisions = run(observed(20, 0.75), observed(21, 0.5), observed(22, 0.45))
    assert outcomes(decisions) == [("stable", "none"), ("warning", "suppressed"), ("alarm", "requested")]
    assert "not confirmed yet (performance 1 of 2 reports)" in decisions[1].reason
    assert decisions[2].reason == "average precision fell from 0.76 to 0.45"
    assert decisions[2].request_id == deterministic_id("retrain", "FraudDetector", "1", 22 * DAY)


def test_a_season_is_never_a_reason_to_retrain_however_long_it_lasts() -> None:
    _, decisions = run(*[observed(day, 0.75, SEASON) for day in range(20, 60)])
    assert set(outcomes(decisions)) == {("warning", "suppressed")}
    assert decisions[0].reason.startswith("drift alone (user_count_7d psi 0.94)")


def test_feature_drift_before_any_label_is_mature_is_suppressed_too() -> None:
    _, decisions = run(*[observed(day, None, SEASON) for day in range(5)])
    assert set(outcomes(decisions)) == {("warning", "suppressed")}
    assert "performance not measured yet" in decisions[0].reason


def test_a_fault_of_the_feed_is_never_a_reason_to_retrain() -> None:
    _, alone = run(observed(20, 0.75, FAULT))
    assert outcomes(alone) == [("warning", "suppressed")]
    assert "data quality: v3 missing 0.40" in alone[0].reason
    _, with_fall = run(*[observed(day, 0.4, FAULT, alert_rate(5.0)) for day in range(20, 30)])
    assert {d.retrain for d in with_fall} == {"suppressed"}
    assert with_fall[-1].state == "alarm"


def test_a_small_or_an_unsure_fall_is_none() -> None:
    _, small = run(observed(20, 0.68), observed(21, 0.68), observed(22, 0.68))
    assert {d.retrain for d in small} == {"none"}
    _, unsure = run(*[observed(day, 0.62, frauds=22) for day in range(20, 25)])
    assert {d.retrain for d in unsure} == {"none"}


def test_too_few_frauds_or_transactions_conclude_nothing() -> None:
    _, few_frauds = run(observed(20, 0.2, frauds=5), observed(21, 0.2, frauds=5), observed(22, 0.2, frauds=5))
    assert {d.retrain for d in few_frauds} == {"none"}
    _, few = run(observed(20, None, count=100))
    assert outcomes(few) == [("insufficient", "none")]


def test_the_count_stands_between_half_the_limit_and_the_limit_and_falls_back_below() -> None:
    _, holds = run(observed(20, 0.5), observed(21, 0.69), observed(22, 0.5))
    assert [d.retrain for d in holds] == ["suppressed", "suppressed", "requested"]
    _, forgets = run(observed(20, 0.5), observed(21, 0.75), observed(22, 0.5))
    assert [d.retrain for d in forgets] == ["suppressed", "none", "suppressed"]


def test_one_request_is_in_flight_until_training_completes_and_then_the_cooldown_starts_again() -> None:
    state, decisions = run(observed(20, 0.5), observed(21, 0.5), observed(22, 0.5))
    assert [d.retrain for d in decisions] == ["suppressed", "requested", "suppressed"]
    request_id = decisions[1].request_id
    assert request_id is not None
    assert "still in flight" in decisions[2].reason

    state = training_completed(state, "another")
    assert state.in_flight == request_id
    state, cooling = run(*[observed(day, 0.5) for day in range(23, 30)], state=training_completed(state, request_id))
    assert {d.retrain for d in cooling} == {"suppressed"}
    assert "cooldown: 2.0 days" in cooling[2].reason
    _, [again] = run(observed(30, 0.5), state=state)
    assert again.retrain == "requested"


def test_an_unanswered_request_is_given_up_in_event_time() -> None:
    settings = PolicySettings(**{**{f: getattr(SETTINGS, f) for f in SETTINGS.__slots__}, "cooldown_ms": 0})
    state = PolicyState()
    retrains = []
    for day in range(20, 28):
        state, decision = decide(state, observed(day, 0.5), settings)
        retrains.append(decision.retrain)
    assert retrains == ["suppressed", "requested", *["suppressed"] * 4, "requested", "suppressed"]


def test_a_new_champion_begins_without_a_past_but_within_the_cooldown() -> None:
    state, _ = run(observed(20, 0.5), observed(21, 0.5))
    state, decisions = run(
        observed(22, None, version="2"),
        observed(23, 0.75, version="2"),
        observed(24, 0.5, version="2"),
        observed(25, 0.5, version="2"),
        state=state,
    )
    assert [d.retrain for d in decisions] == ["none", "none", "suppressed", "suppressed"]
    assert state.version == "2"
    assert state.falls == 2


def test_an_alert_rate_that_stays_away_asks_for_a_retrain_after_more_reports() -> None:
    _, decisions = run(*[observed(day, 0.75, alert_rate(3.0), mature_start=day - 14) for day in range(20, 23)])
    assert [d.retrain for d in decisions] == ["suppressed", "suppressed", "requested"]
    assert decisions[2].reason == "alert rate is 3.00 times the reference"


def test_mature_labels_of_the_shift_itself_that_show_no_fall_call_the_retrain_off() -> None:
    state = PolicyState(version="1", shifts=9, shift_since_ms=10 * DAY)
    _, [decision] = run(observed(25, 0.75, alert_rate(3.0), mature_start=11), state=state)
    assert decision.retrain == "suppressed"
    assert "holds on mature labels since the shift" in decision.reason
    _, [earlier] = run(observed(25, 0.75, alert_rate(3.0), mature_start=9), state=state)
    assert earlier.retrain == "requested"


def test_without_a_baseline_in_the_bundle_the_first_mature_window_of_the_champion_is_it() -> None:
    state, decisions = run(
        observed(20, 0.7, baseline=None), observed(21, 0.4, baseline=None), observed(22, 0.4, baseline=None)
    )
    assert state.own_baseline == pytest.approx(0.7)
    assert [d.retrain for d in decisions] == ["none", "suppressed", "requested"]


def test_ids_are_alike_for_the_same_window_only() -> None:
    first = deterministic_id("retrain", "FraudDetector", "1", DAY)
    assert first == deterministic_id("retrain", "FraudDetector", "1", DAY)
    assert (
        len(
            {
                first,
                deterministic_id("drift", "FraudDetector", "1", DAY),
                deterministic_id("retrain", "FraudDetector", "2", DAY),
                deterministic_id("retrain", "FraudDetector", "1", 2 * DAY),
            }
        )
        == 4
    )
