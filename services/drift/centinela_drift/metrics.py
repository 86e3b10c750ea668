"""Metrics of the drift service."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from centinela.events import DriftReported

EXPORTED_BY = ("drift",)
FEATURE_PSI = Gauge(
    "centinela_feature_psi", "Population stability index of a feature in the newest report.", ["feature"]
)
SCORE_PSI = Gauge("centinela_score_psi", "Population stability index of the scores in the newest report.")
AVERAGE_PRECISION = Gauge(
    "centinela_average_precision", "Average precision on mature labels in the newest report that measured it."
)
CARD_PRECISION = Gauge(
    "centinela_card_precision_at_100", "Card Precision@100 on mature labels in the newest report that measured it."
)
ALERT_RATE = Gauge("centinela_alert_rate", "Share of transactions declined in the newest report's window.")
DRIFT_STATE = Gauge("centinela_drift_state", "1 for the state of the newest report.", ["state"])
WATERMARK = Gauge("centinela_drift_watermark_timestamp_seconds", "Event time up to which panes are complete.")
ROWS = Gauge("centinela_drift_rows", "Transactions kept in memory for performance on late labels.")
REPORTS = Counter(
    "centinela_drift_reports_total", "Reports, by state and by what was done about a retrain.", ["state", "retrain"]
)
REPORT_FAILURES = Counter("centinela_drift_evidently_failures_total", "Attempts at an Evidently report that failed.")
LATE_PANES = Counter(
    "centinela_drift_late_panes_total", "Panes left out because no window reaches back to their event time."
)
LATE_LABELS = Counter(
    "centinela_drift_late_labels_total", "Labels left out because no window reaches back to their transactions."
)
AHEAD = Counter(
    "centinela_drift_ahead_transactions_total",
    "Transactions too far ahead of all others to move event time; they wait in memory until it comes to them.",
)
UNSETTLED = Counter("centinela_drift_unsettled_total", "Reports made before all records in the log were read.")
INTERNAL_ERRORS = Counter(
    "centinela_drift_internal_errors_total", "Records dead-lettered because of a fault of this service."
)

STATES = ("insufficient", "stable", "warning", "alarm")


def show(report: DriftReported) -> None:
    """Set the gauges to *report*."""
    ALERT_RATE.set(report.alert_rate)
    for state in STATES:
        DRIFT_STATE.labels(state).set(state == report.state)
    for finding in report.findings:
        if finding.statistic == "psi" and finding.feature is not None:
            FEATURE_PSI.labels(finding.feature).set(finding.value)
        elif finding.statistic == "score_psi":
            SCORE_PSI.set(finding.value)
    if report.performance is not None and report.performance.average_precision is not None:
        AVERAGE_PRECISION.set(report.performance.average_precision)
        if report.performance.card_precision_at_100 is not None:
            CARD_PRECISION.set(report.performance.card_precision_at_100)
