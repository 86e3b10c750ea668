"""Records in, reports and requests out: the drift service without its Kafka client.

Everything that must survive a crash is here, including the next offset of every partition, so that a snapshot is
consistent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import msgspec

from centinela.codec import Decoder, ModelEventDecoder, time_fault
from centinela.events import (
    DriftReported,
    FeaturePane,
    Finding,
    LabelReported,
    ModelPromoted,
    PerformanceMeasured,
    RetrainRequested,
    TrainingCompleted,
    encode,
)
from centinela.kafka.headers import event_headers, event_source
from centinela.kafka.port import Outgoing, Record, TopicPartition
from centinela.model.panes import Pane, read_pane
from centinela.times import days_to_ms, from_ms, to_ms
from centinela_drift import metrics
from centinela_drift.decision import detection
from centinela_drift.decision.detection import Limits, Reference
from centinela_drift.decision.left_out import LeftOut
from centinela_drift.decision.performance import LABEL_ROW, Labels, Measured, measure
from centinela_drift.decision.policy import (
    Decision,
    Observation,
    PolicySettings,
    PolicyState,
    decide,
    deterministic_id,
    training_completed,
)
from centinela_drift.decision.windows import Arrays, Bucket, Windows, WindowsSnapshot
from centinela_drift.settings import DriftSettings

E = TypeVar("E", FeaturePane, LabelReported)
_LABELS = "labels"


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics' names; tests use their own."""

    panes: str = "feature-panes"
    labels: str = "labels"
    model_events: str = "model-events"
    reports: str = "drift-reports"
    requests: str = "retrain-requests"

    @property
    def inputs(self) -> tuple[str, str, str]:
        """The topics that are consumed."""
        return self.panes, self.labels, self.model_events


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One report, its request if one is made, and what they are based on. ``alarm_began``: the report before was not an
    alarm."""

    report: DriftReported
    request: RetrainRequested | None
    recent: Bucket
    alarm_began: bool


class DriftSnapshot(msgspec.Struct, frozen=True):
    """Everything that a restart needs, except arrays. The names are those in the file on disk.

    ``offsets``: topic, partition and next offset. ``last_report``: the event's JSON. ``alarm_unreported``: there is an
    alarm, and no readable report of it yet.
    """

    windows: WindowsSnapshot
    policy: PolicyState
    last_end: int | None
    offsets: list[tuple[str, int, int]]
    outbox: list[Outgoing]
    last_report: str | None
    report_path: str | None
    promoted_version: str | None
    left_out: LeftOut = LeftOut()
    alarm_unreported: bool = False


class DriftHandler:
    """Merges panes and labels, and evaluates when a report is due.

    Args:
        settings: Windows, limits and the policy.
        topics: Names of the topics.
    """

    def __init__(self, settings: DriftSettings, topics: Topics = Topics()) -> None:
        self._settings = settings
        self.topics = topics
        self._every = days_to_ms(settings.drift_report_every_days)
        self._window = days_to_ms(settings.drift_window_days)
        self._mature_window = days_to_ms(settings.drift_performance_window_days)
        self._maturity = days_to_ms(settings.label_maturity_days)
        self._limits = Limits(
            settings.drift_psi_limit,
            settings.drift_significance,
            settings.drift_missing_limit,
            settings.drift_alert_rate_ratio,
        )
        self._policy_settings = PolicySettings(
            settings.drift_min_sample,
            settings.drift_min_frauds,
            settings.drift_ap_fall_limit,
            settings.drift_confirm_performance,
            settings.drift_confirm_alert_rate,
            days_to_ms(settings.drift_cooldown_days),
            days_to_ms(settings.drift_request_timeout_days),
        )
        self._panes: Decoder[FeaturePane] = Decoder(FeaturePane)
        self._labels_in: Decoder[LabelReported] = Decoder(LabelReported)
        self._model_events = ModelEventDecoder()
        self.windows = Windows(days_to_ms(settings.drift_idle_partition_days))
        self.labels = Labels()
        self.policy = PolicyState()
        self.offsets: dict[TopicPartition, int] = {}
        self.outbox: list[Outgoing] = []
        self.last_report: DriftReported | None = None
        self.report_path: str | None = None
        self.promoted_version: str | None = None
        self.left_out = LeftOut()
        self.alarm_unreported = False
        self._last_end: int | None = None

    def apply(self, record: Record, now: datetime) -> bool:
        """Apply *record* to the state; False if it was applied before (after a restart), or does not concern drift.

        Args:
            now: Event times ahead of it by more than a day are refused.

        Raises:
            InvalidRecord: It cannot be used; nothing changed. The caller dead-letters it, then calls ``skip``.
        """
        if self.seen(record):
            return False
        if record.topic == self.topics.panes:
            used = self._add_pane(read_pane(self._timely(self._panes.decode(record.value), record, now)))
        elif record.topic == self.topics.labels:
            used = self._add_label(self._timely(self._labels_in.decode(record.value), record, now))
        else:
            used = self._model_event(record)
        self.skip(record)
        return used

    def seen(self, record: Record) -> bool:
        """Whether *record* was applied before."""
        return record.offset < self.offsets.get(TopicPartition(record.topic, record.partition), 0)

    def skip(self, record: Record) -> None:
        """Count *record* as processed."""
        self.offsets[TopicPartition(record.topic, record.partition)] = record.offset + 1

    def due(self) -> int | None:
        """End (ms) of the earliest report that the watermark has passed, or None."""
        watermark = self.windows.watermark_ms
        first = self.windows.first_bucket(-1 if self._last_end is None else self._last_end)
        if watermark is None or first is None:
            return None
        end = first - first % self._every + self._every
        return end if end <= watermark else None

    def evaluate(self, end_ms: int, reference: Reference | None) -> Evaluation:
        """The report whose window ends at *end_ms*; its events stay in ``outbox`` until ``published``.

        Args:
            end_ms: As returned by ``due``.
            reference: Of ``serving(end_ms)``; None if its bundle is no longer available.
        """
        version = self.serving(end_ms)
        recent = self.windows.between(version, end_ms - self._window, end_ms)
        mature_start, mature_end = end_ms - self._maturity - self._mature_window, end_ms - self._maturity
        mature = self._mature(version, mature_start, mature_end, end_ms)
        left_out = self.left_out.findings(self._settings.drift_missing_limit)
        if reference is None:
            decision = Decision(
                "insufficient", "none", f"the reference of version {version} is not available", left_out
            )
        else:
            findings = left_out + self._findings(
                reference,
                recent,
                (
                    recent,
                    self.windows.between(version, end_ms - self._every, end_ms),
                    self.windows.between(version, mature_start, mature_end),
                ),
                whole=(self.windows.first_seen(version) or 0) <= end_ms - self._window,
            )
            observation = Observation(
                self._settings.model_name,
                version,
                end_ms,
                recent.count,
                mature,
                mature_start,
                reference.average_precision,
                findings,
            )
            self.policy, decision = decide(self.policy, observation, self._policy_settings)
        baseline = (
            reference.average_precision
            if reference and reference.average_precision is not None
            else self.policy.own_baseline
        )
        report = DriftReported(
            report_id=deterministic_id("drift", self._settings.model_name, version, end_ms),
            model_name=self._settings.model_name,
            model_version=version,
            start=from_ms(end_ms - self._window),
            end=from_ms(end_ms),
            count=recent.count,
            alert_rate=recent.alert_rate,
            state=decision.state,
            findings=decision.findings,
            retrain=decision.retrain,
            reason=decision.reason,
            report_path=self.report_path,
            performance=(
                None
                if mature is None
                else PerformanceMeasured(
                    start=from_ms(mature_start),
                    end=from_ms(mature_end),
                    count=mature.count,
                    frauds=mature.frauds,
                    average_precision=mature.average_precision,
                    card_precision_at_100=mature.card_precision,
                    baseline_average_precision=baseline,
                )
            ),
        )
        return self._conclude(report, decision, recent, end_ms)

    def published(self, count: int) -> None:
        """The first *count* events of ``outbox`` are in the log."""
        del self.outbox[:count]

    def report_made(self, path: str) -> None:
        """The readable report of the alarm is at *path*."""
        self.report_path = path
        self.alarm_unreported = False

    def serving(self, end_ms: int) -> str:
        """The version that a report ending at *end_ms* is about: the newest champion by then."""
        version = self.windows.serving(end_ms)
        if version is None:
            raise ValueError(f"there are no panes before {end_ms}")
        return version

    def snapshot(self) -> tuple[DriftSnapshot, Arrays]:
        """The content, for ``restore``; see ``Windows.snapshot``."""
        windows, arrays = self.windows.snapshot()
        arrays[_LABELS] = self.labels.array()
        return DriftSnapshot(
            windows=windows,
            policy=self.policy,
            last_end=self._last_end,
            offsets=[(tp.topic, tp.partition, offset) for tp, offset in self.offsets.items()],
            outbox=list(self.outbox),
            last_report=None if self.last_report is None else encode(self.last_report).decode(),
            report_path=self.report_path,
            promoted_version=self.promoted_version,
            left_out=self.left_out,
            alarm_unreported=self.alarm_unreported,
        ), arrays

    def restore(self, snapshot: DriftSnapshot, arrays: Arrays) -> None:
        """Replace the content by what ``snapshot`` gave."""
        self.windows.restore(snapshot.windows, arrays)
        self.labels.load(arrays[_LABELS].view(LABEL_ROW))
        self.policy = snapshot.policy
        self._last_end = snapshot.last_end
        self.offsets = {TopicPartition(topic, partition): offset for topic, partition, offset in snapshot.offsets}
        self.outbox = list(snapshot.outbox)
        self.last_report = (
            None if snapshot.last_report is None else msgspec.json.decode(snapshot.last_report, type=DriftReported)
        )
        self.report_path = snapshot.report_path
        self.promoted_version = snapshot.promoted_version
        self.left_out = snapshot.left_out
        self.alarm_unreported = snapshot.alarm_unreported

    def _add_pane(self, pane: Pane) -> bool:
        time = self.windows.event_time
        ahead_before = time.ahead
        used = self.windows.merge(pane)
        metrics.AHEAD.inc(max(0, time.ahead - ahead_before))
        if not used:
            metrics.LATE_PANES.inc()
        self.left_out = self.left_out.with_transactions(pane.event.count, ahead=time.ahead, late=not used)
        return used

    @staticmethod
    def _timely(event: E, record: Record, now: datetime) -> E:
        if (fault := time_fault(event, record.timestamp_ms, now)) is not None:
            raise fault
        return event

    def _add_label(self, label: LabelReported) -> bool:
        used = to_ms(label.occurred_at) >= self.windows.expired_before_ms
        self.left_out = self.left_out.with_label(late=not used)
        if used:
            self.labels.add(label)
        else:
            metrics.LATE_LABELS.inc()
        return used

    def _model_event(self, record: Record) -> bool:
        if record.value is None:
            return False
        event = self._model_events.decode(record.value)
        if isinstance(event, TrainingCompleted) and event.model_name == self._settings.model_name:
            self.policy = training_completed(self.policy, event.request_id)
            return True
        if (
            isinstance(event, ModelPromoted)
            and event.model_name == self._settings.model_name
            and event.alias == "champion"
        ):
            self.promoted_version = event.model_version
            return True
        return False

    def _mature(self, version: str, start_ms: int, end_ms: int, as_of_ms: int) -> Measured | None:
        rows = self.windows.rows(version, start_ms, end_ms)
        if not len(rows):
            return None
        return measure(rows, self.labels.frauds_known(rows["id"], as_of_ms), start_ms=start_ms)

    def _findings(
        self, reference: Reference, recent: Bucket, fed: Sequence[Bucket], *, whole: bool
    ) -> tuple[Finding, ...]:
        """Faults in any of *fed*, then the shifts of *recent*; features only over a *whole* window, because weekdays
        would look like drift."""
        if recent.count < self._settings.drift_min_sample:
            return ()
        faults: dict[tuple[str, str | None], Finding] = {}
        for bucket in fed:
            for fault in detection.data_quality(reference, bucket, self._limits):
                worst = faults.setdefault((fault.statistic, fault.feature), fault)
                if fault.value > worst.value:
                    faults[fault.statistic, fault.feature] = fault
        shift = detection.alert_rate_shift(reference, recent, self._limits)
        return (
            *faults.values(),
            *(() if shift is None else (shift,)),
            *detection.score_drift(reference, recent, self._limits),
            *(detection.feature_drift(reference, recent, self._limits) if whole else ()),
        )

    def _conclude(self, report: DriftReported, decision: Decision, recent: Bucket, end_ms: int) -> Evaluation:
        request = None
        if decision.request_id is not None:
            request = RetrainRequested(
                request_id=decision.request_id,
                model_name=report.model_name,
                requested_by="drift",
                as_of=report.end,
                reason=report.reason,
                findings=tuple(f for f in report.findings if f.breached),
            )
        self._send(self.topics.reports, report, report.report_id, report.end)
        if request is not None:
            self._send(self.topics.requests, request, request.request_id, request.as_of)
        alarm_began = report.state == "alarm" and (self.last_report is None or self.last_report.state != "alarm")
        self.alarm_unreported = report.state == "alarm" and (alarm_began or self.alarm_unreported)
        self.last_report = report
        self._last_end = end_ms
        self.left_out = LeftOut()
        self.windows.event_time.forget_ahead()
        horizon = end_ms + self._every - max(self._window, self._maturity + self._mature_window)
        self.windows.expire(horizon)
        self.labels.expire(horizon)
        return Evaluation(report, request, recent, alarm_began)

    def _send(self, topic: str, event: DriftReported | RetrainRequested, event_id: str, time: datetime) -> None:
        headers = event_headers(
            event_type=type(event).__name__, event_id=event_id, source=event_source("drift"), time=time
        )
        self.outbox.append(Outgoing(topic, encode(event), event.model_name.encode(), headers))
