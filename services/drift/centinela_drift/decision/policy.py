"""When a retrain is requested, and why it is not.

A retrain is requested in two cases only: average precision on mature labels has fallen, or the alert rate has shifted
and labels do not yet show that performance is intact. Feature and score drift are explanations: a busy season causes
them without any loss of performance.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import msgspec

from centinela.events import Finding
from centinela.times import DAY_MS
from centinela_drift.decision.detection import DATA_QUALITY, worst
from centinela_drift.decision.performance import Measured

State = Literal["insufficient", "stable", "warning", "alarm"]
Retrain = Literal["requested", "suppressed", "none"]


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """See the settings of the same names; times in milliseconds of event time."""

    min_sample: int
    min_frauds: int
    ap_fall_limit: float
    confirm_performance: int
    confirm_alert_rate: int
    cooldown_ms: int
    request_timeout_ms: int


@dataclass(frozen=True, slots=True)
class Observation:
    """What one report observes of the serving version.

    Args:
        end_ms: End of the window: the report's instant, the request's ``as_of``.
        count: Transactions in the recent window.
        mature: Performance on mature labels; None where the window is empty.
        mature_start_ms: Start of the window that *mature* covers.
        baseline: Average precision to compare with, or None while there is none.
        findings: Every finding of the detection, data quality included.
    """

    model_name: str
    version: str
    end_ms: int
    count: int
    mature: Measured | None
    mature_start_ms: int
    baseline: float | None
    findings: tuple[Finding, ...]


class PolicyState(msgspec.Struct, frozen=True):
    """What the policy keeps from report to report. Counters belong to *version*.

    ``quiet_since_ms``: the last request, or the first report after its answer; the cooldown runs from there.
    """

    version: str | None = None
    falls: int = 0
    shifts: int = 0
    shift_since_ms: int | None = None
    own_baseline: float | None = None
    quiet_since_ms: int | None = None
    in_flight: str | None = None
    answered: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """``findings`` are the observation's with the performance finding added where there is one."""

    state: State
    retrain: Retrain
    reason: str
    findings: tuple[Finding, ...]
    request_id: str | None = None


def decide(state: PolicyState, observed: Observation, settings: PolicySettings) -> tuple[PolicyState, Decision]:
    """The decision on one report, and what to remember for the next.

    A fall (or a shift) counts once per report; it is confirmed after several in a row, and forgotten once it is below
    half of its limit: in between, the count stays (hysteresis).
    """
    state = _requests(_of_version(state, observed.version), observed, settings)
    fall = _performance_finding(state, observed, settings)
    findings = observed.findings if fall is None else (fall, *observed.findings)
    state = _remember(state, observed, fall, settings)
    by_kind = {f.statistic: f for f in findings}
    faults = [f for f in findings if f.breached and f.statistic.startswith(DATA_QUALITY)]
    drifted = [f for f in findings if f.breached and f.statistic in ("psi", "score_psi")]
    fallen, shifted = state.falls >= settings.confirm_performance, state.shifts >= settings.confirm_alert_rate
    pending = [
        f
        for f, count in ((fall, state.falls), (by_kind.get("alert_rate_ratio"), state.shifts))
        if f is not None and count
    ]

    def conclude(retrain: Retrain, reason: str, *, alarm: bool, request_id: str | None = None) -> Decision:
        quiet = not (faults or drifted or pending)
        if fall is None and observed.count < settings.min_sample:
            return Decision("insufficient", retrain, reason, findings)
        return Decision("alarm" if alarm else "stable" if quiet else "warning", retrain, reason, findings, request_id)

    if fall is None and observed.count < settings.min_sample:
        return state, conclude(
            "none", f"{observed.count} transactions; at least {settings.min_sample} are needed", alarm=False
        )
    if not pending:
        if faults:
            return state, conclude(
                "suppressed",
                f"data quality: {_name(faults)}; fix the feed, a retrain would learn the fault",
                alarm=False,
            )
        if drifted:
            return state, conclude(
                "suppressed", f"drift alone ({_name(drifted)}): {_performance_note(observed, fall)}", alarm=False
            )
        return state, conclude("none", _performance_note(observed, fall), alarm=False)

    why = "; ".join(_describe(f, observed) for f in pending)
    alarm = fallen or shifted
    if faults:
        return state, conclude(
            "suppressed", f"{why}; but data quality: {_name(faults)}; fix the feed first", alarm=alarm
        )
    if not alarm:
        return state, conclude("suppressed", f"{why}; not confirmed yet ({_progress(state, settings)})", alarm=False)
    if not fallen and _labels_show_no_fall(state, observed, fall):
        return state, conclude(
            "suppressed", f"{why}; but average precision holds on mature labels since the shift", alarm=False
        )
    if state.in_flight is not None:
        return state, conclude("suppressed", f"{why}; request {state.in_flight} is still in flight", alarm=True)
    if state.quiet_since_ms is not None and observed.end_ms - state.quiet_since_ms < settings.cooldown_ms:
        waited = (observed.end_ms - state.quiet_since_ms) / DAY_MS
        return state, conclude(
            "suppressed", f"{why}; cooldown: {waited:.1f} days since the last request or its answer", alarm=True
        )
    request_id = deterministic_id("retrain", observed.model_name, observed.version, observed.end_ms)
    requested = msgspec.structs.replace(state, quiet_since_ms=observed.end_ms, in_flight=request_id)
    return requested, conclude("requested", why, alarm=True, request_id=request_id)


def training_completed(state: PolicyState, request_id: str) -> PolicyState:
    """The request is answered, whatever the outcome. The cooldown starts again: a new champion is not measured yet, and
    if there is none, an immediate second request would not find one either."""
    return msgspec.structs.replace(state, in_flight=None, answered=True) if state.in_flight == request_id else state


def deterministic_id(kind: str, model_name: str, version: str, end_ms: int) -> str:
    """An id that the same window of the same model gets again after a restart."""
    digest = hashlib.blake2b(f"{model_name}|{version}|{end_ms}".encode(), digest_size=8).hexdigest()
    return f"{kind}-{digest}"


def _of_version(state: PolicyState, version: str) -> PolicyState:
    if state.version == version:
        return state
    return PolicyState(
        version=version, quiet_since_ms=state.quiet_since_ms, in_flight=state.in_flight, answered=state.answered
    )


def _requests(state: PolicyState, observed: Observation, settings: PolicySettings) -> PolicyState:
    """Date an answer by this report; give up a request that was not answered in time."""
    if state.answered:
        return msgspec.structs.replace(state, quiet_since_ms=observed.end_ms, answered=False)
    if (
        state.in_flight is None
        or state.quiet_since_ms is None
        or observed.end_ms - state.quiet_since_ms < settings.request_timeout_ms
    ):
        return state
    return msgspec.structs.replace(state, in_flight=None)


def _sufficient(observed: Observation, settings: PolicySettings) -> bool:
    return (
        observed.mature is not None
        and observed.mature.average_precision is not None
        and observed.mature.count >= settings.min_sample
        and observed.mature.frauds >= settings.min_frauds
    )


def _performance_finding(state: PolicyState, observed: Observation, settings: PolicySettings) -> Finding | None:
    baseline = observed.baseline if observed.baseline is not None else state.own_baseline
    if observed.mature is None or observed.mature.average_precision is None or observed.mature.high is None:
        return None
    if baseline is None or not _sufficient(observed, settings):
        return None
    fall = baseline - observed.mature.average_precision
    significant = observed.mature.high < baseline
    return Finding(
        statistic="average_precision_fall",
        value=fall,
        limit=settings.ap_fall_limit,
        breached=fall >= settings.ap_fall_limit and significant,
        significant=significant,
    )


def _remember(state: PolicyState, observed: Observation, fall: Finding | None, settings: PolicySettings) -> PolicyState:
    own = state.own_baseline
    if own is None and observed.baseline is None and observed.mature is not None and _sufficient(observed, settings):
        own = observed.mature.average_precision
    shift = next((f for f in observed.findings if f.statistic == "alert_rate_ratio"), None)
    shifts, since = state.shifts, state.shift_since_ms
    if shift is not None and observed.count >= settings.min_sample:
        half = 1 + (shift.limit - 1) / 2
        shifts = _count(shifts, shift.breached, quiet=1 / half < shift.value < half)
        since = None if not shifts else since if since is not None else observed.end_ms
    falls = state.falls
    if fall is not None:
        falls = _count(falls, fall.breached, quiet=fall.value < fall.limit / 2)
    return msgspec.structs.replace(state, falls=falls, shifts=shifts, shift_since_ms=since, own_baseline=own)


def _count(so_far: int, breached: bool, *, quiet: bool) -> int:
    return so_far + 1 if breached else 0 if quiet else so_far


def _labels_show_no_fall(state: PolicyState, observed: Observation, fall: Finding | None) -> bool:
    """Whether mature labels of a window that began after the shift show no fall."""
    return (
        fall is not None
        and not state.falls
        and state.shift_since_ms is not None
        and observed.mature_start_ms >= state.shift_since_ms
    )


def _name(findings: list[Finding]) -> str:
    first = worst(findings)
    if first is None:
        return ""
    kind = first.statistic.removeprefix(DATA_QUALITY)
    more = f" and {len(findings) - 1} more" if len(findings) > 1 else ""
    return f"{first.feature + ' ' if first.feature else ''}{kind} {first.value:.2f}{more}"


def _describe(finding: Finding, observed: Observation) -> str:
    if (
        finding.statistic == "average_precision_fall"
        and observed.mature is not None
        and observed.mature.average_precision is not None
    ):
        now = observed.mature.average_precision
        return f"average precision fell from {now + finding.value:.2f} to {now:.2f}"
    return f"alert rate is {finding.value:.2f} times the reference"


def _performance_note(observed: Observation, fall: Finding | None) -> str:
    if fall is not None:
        return "no fall of average precision on mature labels"
    frauds = observed.mature.frauds if observed.mature else 0
    return f"performance not measured yet ({frauds} mature frauds)"


def _progress(state: PolicyState, settings: PolicySettings) -> str:
    parts = []
    if state.falls:
        parts.append(f"performance {state.falls} of {settings.confirm_performance} reports")
    if state.shifts:
        parts.append(f"alert rate {state.shifts} of {settings.confirm_alert_rate} reports")
    return ", ".join(parts)
