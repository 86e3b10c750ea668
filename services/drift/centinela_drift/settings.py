"""Settings of the drift service."""

from __future__ import annotations

from pydantic import Field, model_validator

from centinela.groups import DRIFT
from centinela.model.panes import PANE_WIDTH_MS
from centinela.settings import Settings
from centinela.times import DAY_MS, LONGEST_DAYS, days_to_ms


class DriftSettings(Settings):
    """How windows are cut, what counts as drift and when a retrain is requested. All days are days of event time."""

    drift_port: int = Field(8003, ge=0, le=65535, description="Port of /health, /ready, /metrics and /drift.")
    drift_group: str = Field(DRIFT.name, description="Consumer group; one process only.")

    drift_report_every_days: float = Field(
        1.0, gt=0, le=LONGEST_DAYS, description="Event time between reports; a multiple of six hours."
    )
    drift_window_days: float = Field(
        7.0,
        gt=0,
        le=LONGEST_DAYS,
        description=(
            "Trailing window of feature drift, score drift and alert rate; whole weeks, or weekdays look like drift."
        ),
    )
    drift_performance_window_days: float = Field(
        7.0, gt=0, le=LONGEST_DAYS, description="Trailing window of mature labels."
    )
    drift_idle_partition_days: float = Field(
        2.0,
        gt=0,
        le=LONGEST_DAYS,
        description=(
            "A partition this far behind the newest counts as idle and is not waited for; a transaction this far ahead"
            " moves event time only if most others do too."
        ),
    )

    drift_min_sample: int = Field(
        500, ge=1, description="Transactions that a window needs before anything is concluded."
    )
    drift_min_frauds: int = Field(
        20, ge=1, description="Frauds a window of mature labels needs before performance is measured."
    )
    drift_psi_limit: float = Field(0.1, gt=0, description="Population stability index at which a shift counts.")
    drift_significance: float = Field(
        0.001, gt=0, lt=1, description="Chance of a false alarm per statistic (shared by all features)."
    )
    drift_missing_limit: float = Field(
        0.05,
        gt=0,
        le=1,
        description=(
            "Rise of a feature's missing share that is a data-quality fault; also the share of transactions left out."
        ),
    )
    drift_alert_rate_ratio: float = Field(
        2.0, gt=1, description="Alert rate over the reference's (or the inverse) that is a shift."
    )
    drift_ap_fall_limit: float = Field(
        0.1, gt=0, lt=1, description="Fall of average precision below its baseline that counts."
    )

    drift_confirm_performance: int = Field(
        2, ge=1, description="Reports that must show a fall of performance before a retrain."
    )
    drift_confirm_alert_rate: int = Field(
        3, ge=1, description="Reports that must show a shift of the alert rate before a retrain."
    )
    drift_cooldown_days: float = Field(
        7.0, ge=0, le=LONGEST_DAYS, description="Minimum event time between two retrain requests."
    )
    drift_request_timeout_days: float = Field(
        7.0, gt=0, le=LONGEST_DAYS, description="Event time after which an unanswered request is given up."
    )

    drift_snapshot_seconds: float = Field(10.0, gt=0, description="Seconds between snapshots while records arrive.")
    drift_max_rows: int = Field(
        5_000_000, ge=1000, description="Transactions in memory (29 bytes each) past which panes wait."
    )
    drift_settle_seconds: float = Field(
        30.0, gt=0, description="Longest wait for records already in the log before a report."
    )
    drift_evidently: bool = Field(True, description="Make an Evidently report (HTML, JSON) when an alarm begins.")
    drift_evidently_timeout_seconds: float = Field(
        300.0,
        gt=0,
        description="An Evidently report that takes longer is stopped; it is tried again later, with more time.",
    )

    @model_validator(mode="after")
    def _whole_panes(self) -> DriftSettings:
        for name in (
            "drift_report_every_days",
            "drift_window_days",
            "drift_performance_window_days",
            "label_maturity_days",
        ):
            if days_to_ms(getattr(self, name)) % PANE_WIDTH_MS:
                raise ValueError(f"{name} must be a multiple of {PANE_WIDTH_MS / DAY_MS} days, the width of a pane")
        return self
