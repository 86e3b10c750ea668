"""Applies records in order, reports when due, saves snapshots: the drift service on any ``EventLog``."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from typing import Any, Protocol

import structlog
from msgspec import to_builtins

from centinela.clock import Clock
from centinela.deadletters.record import DeadLetterCap, dead_letter
from centinela.errors import DependencyUnavailable, InvalidRecord, ModelRejected
from centinela.kafka.port import Outgoing, Record, TopicPartition
from centinela.liveness.health import Health
from centinela.liveness.retry import Backoff
from centinela.telemetry.metrics import CONSUMER_RECORDS
from centinela.times import from_ms
from centinela_drift import metrics
from centinela_drift.decision.detection import Reference
from centinela_drift.evaluator import DriftHandler, DriftSnapshot, Evaluation
from centinela_drift.settings import DriftSettings
from centinela_drift.state_store import SnapshotStore

_log = structlog.get_logger(__name__)
QUIET_S = 0.3


class EventLog(Protocol):
    """What the service needs of Kafka."""

    async def send(self, record: Outgoing) -> None:
        """Return when *record* is acknowledged."""

    async def ends(self) -> Mapping[TopicPartition, int]:
        """The end of each assigned partition; -1 while it is unknown."""

    async def position(self, partition: TopicPartition) -> int:
        """The offset up to which records were fetched, transaction markers included."""

    def pause(self, topics: Collection[str]) -> None:
        """Fetch nothing more of *topics* until ``resume``."""

    def resume(self) -> None:
        """Undo ``pause``."""


class References(Protocol):
    """Where the frozen reference of a version comes from."""

    async def get(self, version: str) -> Reference:
        """The reference of *version*.

        Raises:
            DependencyUnavailable: The registry does not answer.
            ModelRejected: The bundle does not exist, or is damaged.
        """


class Reporter(Protocol):
    """Makes readable reports in the background."""

    @property
    def running(self) -> bool:
        """Whether a report is being made, or will be tried again."""

    def begin(self, evaluation: Evaluation, reference: Reference) -> None:
        """Make a report as soon as none is being made. Never raises, never waits."""

    def finished(self) -> str | None:
        """Path of a report finished since the last call."""


class DriftService:
    """The loop around ``DriftHandler``. One event loop calls everything; only snapshots are written in a thread."""

    def __init__(
        self,
        settings: DriftSettings,
        handler: DriftHandler,
        store: SnapshotStore,
        references: References,
        reporter: Reporter,
        health: Health,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self.handler = handler
        self._store = store
        self._references = references
        self._reporter = reporter
        self._health = health
        self._clock = clock
        self._changed = asyncio.Event()
        self._dirty = False
        self._saved_at = clock.monotonic()
        self._taken_at: dict[TopicPartition, float] = {}
        self._cap = DeadLetterCap(settings.dead_letter_max_share)
        self._paused = False
        self._waiting_for: str | None = None
        self._left_out_logged = 0

    def restore(self) -> None:
        """Load the newest snapshot, if there is one."""
        snapshot = self._store.load(DriftSnapshot)
        if snapshot is None:
            _log.info("state.started_empty")
            return
        self.handler.restore(*snapshot)
        if self.handler.last_report is not None:
            metrics.show(self.handler.last_report)
        _log.info("state.restored", transactions=self.handler.windows.row_count, labels=len(self.handler.labels))

    async def take(self, record: Record, out: EventLog) -> None:
        """Deal with one record: into the state, or to the dead letters. An error of ours dead-letters the record as
        well.

        Raises:
            DeadLetterFlood: Most records fail: the fault is likely ours.
            DependencyUnavailable: The dead letter could not be written; the record does not count as taken.
        """
        outcome = "used"
        dead = 0
        try:
            if not self.handler.apply(record, self._clock.now()):
                outcome = "ignored"
        except InvalidRecord as invalid:
            outcome = "dead_lettered"
            dead = 1
            await self._dead_letter(record, invalid.reason, invalid.detail, out)
        except Exception as error:
            outcome = "dead_lettered"
            dead = 1
            metrics.INTERNAL_ERRORS.inc()
            _log.exception("record.failed", topic=record.topic, partition=record.partition, offset=record.offset)
            await self._dead_letter(record, "internal_error", f"{type(error).__name__}: {error}", out)
        self._cap.check(1, dead)
        CONSUMER_RECORDS.labels(record.topic, outcome).inc()
        self._taken_at[TopicPartition(record.topic, record.partition)] = self._clock.monotonic()
        self._dirty = True
        self._changed.set()

    async def run(self, out: EventLog, stop: asyncio.Event) -> None:
        """Report and save until *stop*; a last snapshot at the end."""
        await self._publish(out, stop)
        while not stop.is_set():
            self._changed.clear()
            await self._report_all_due(out, stop)
            if self._dirty and self._clock.monotonic() - self._saved_at >= self._settings.drift_snapshot_seconds:
                await self._save()
            await _first(stop.wait(), self._changed.wait(), timeout_s=1.0)
        await self._save()

    def status(self) -> dict[str, object]:
        """What ``/drift`` shows."""
        watermark = self.handler.windows.watermark_ms
        return {
            "last_report": to_builtins(self.handler.last_report),
            "policy": to_builtins(self.handler.policy),
            "promoted_version": self.handler.promoted_version,
            "watermark_ms": watermark,
            "transactions": self.handler.windows.row_count,
            "labels": len(self.handler.labels),
            "left_out": to_builtins(self.handler.left_out),
            "waiting_for": self._waiting_for,
            "report_path": self.handler.report_path,
        }

    async def _report_all_due(self, out: EventLog, stop: asyncio.Event) -> None:
        self._measure_state()
        self._take_readable_report()
        while not stop.is_set() and self.handler.due() is not None:
            await self._settle(out, stop)
            end = self.handler.due()
            if end is None:
                return
            version = self.handler.serving(end)
            reference = await self._reference(version, out, stop)
            if stop.is_set() or self.handler.due() != end or self.handler.serving(end) != version:
                continue
            self._take_readable_report()
            evaluation = self.handler.evaluate(end, reference)
            await self._save()
            await self._publish(out, stop)
            self._show(evaluation)
            if reference is not None and self._settings.drift_evidently and self._is_unreported(evaluation):
                self._reporter.begin(evaluation, reference)
            self._flow(out, blocked=False)

    def _take_readable_report(self) -> None:
        if (path := self._reporter.finished()) is not None:
            self.handler.report_made(path)
            self._dirty = True

    def _is_unreported(self, evaluation: Evaluation) -> bool:
        """Whether an alarm began, or goes on and its report was given up, or lost with the process before."""
        return evaluation.alarm_began or (self.handler.alarm_unreported and not self._reporter.running)

    async def _settle(self, out: EventLog, stop: asyncio.Event) -> None:
        """Wait until every record that is in the log now is applied, so that a report does not depend on which topic
        was read first."""
        ends: dict[TopicPartition, int] = {}
        deadline = self._clock.monotonic() + self._settings.drift_settle_seconds
        while not stop.is_set():
            for tp, end in (await out.ends()).items():
                if ends.get(tp, -1) < 0 and not (self._paused and tp.topic == self.handler.topics.panes):
                    ends[tp] = end
            open_ = [tp for tp, end in ends.items() if end < 0 or not await self._taken(tp, end, out)]
            if not open_:
                return
            if self._clock.monotonic() >= deadline:
                metrics.UNSETTLED.inc()
                _log.warning("report.unsettled", partitions=[f"{tp.topic}-{tp.partition}" for tp in open_])
                return
            await asyncio.sleep(0.05)

    async def _taken(self, partition: TopicPartition, end: int, out: EventLog) -> bool:
        """Whether *partition* is applied up to *end*. After the last record there may be transaction markers only: then
        the fetch position has reached *end*, and no record has arrived for a moment."""
        if self.handler.offsets.get(partition, 0) >= end:
            return True
        if await out.position(partition) < end:
            return False
        return self._clock.monotonic() - self._taken_at.setdefault(partition, self._clock.monotonic()) >= QUIET_S

    async def _reference(self, version: str, out: EventLog, stop: asyncio.Event) -> Reference | None:
        backoff = _backoff()
        while not stop.is_set():
            try:
                reference = await self._references.get(version)
            except DependencyUnavailable as error:
                self._wait_for(f"the reference of version {version}: {error}")
                self._flow(out, blocked=True)
            except ModelRejected as error:
                _log.error("reference.missing", model_version=version, error=str(error))
                self._wait_for(None)
                return None
            else:
                self._wait_for(None)
                return reference
            await _first(stop.wait(), timeout_s=backoff.next_s())
        return None

    def _wait_for(self, detail: str | None) -> None:
        if detail is None:
            self._health.met("registry")
        else:
            self._health.wait_for("registry", detail)
            if self._waiting_for is None:
                _log.warning("reference.awaited", detail=detail)
        self._waiting_for = detail

    def _flow(self, out: EventLog, *, blocked: bool) -> None:
        """Pause panes while no report can be made and memory is full; resume afterwards."""
        full = self.handler.windows.row_count > self._settings.drift_max_rows
        if blocked and full and not self._paused:
            _log.warning("panes.paused", transactions=self.handler.windows.row_count)
            out.pause([self.handler.topics.panes])
            self._paused = True
        elif self._paused and not blocked:
            out.resume()
            self._paused = False

    async def _publish(self, out: EventLog, stop: asyncio.Event) -> None:
        """Send the events in the outbox. It is part of the snapshot: after a crash the same events are sent again, with
        the same ids."""
        backoff = _backoff()
        while self.handler.outbox and not stop.is_set():
            try:
                await out.send(self.handler.outbox[0])
            except DependencyUnavailable as error:
                _log.warning("report.unsent", detail=str(error))
                await _first(stop.wait(), timeout_s=backoff.next_s())
            else:
                self.handler.published(1)
                self._dirty = True
                backoff.reset()

    async def _save(self) -> None:
        values, arrays = self.handler.snapshot()
        self._dirty = False
        try:
            await asyncio.to_thread(self._store.save, values, arrays)
        except OSError as error:
            self._dirty = True
            self._health.wait_for("disk", str(error))
            _log.error("snapshot.failed", error=str(error))
        else:
            self._health.met("disk")
        self._saved_at = self._clock.monotonic()

    async def _dead_letter(self, record: Record, reason: str, detail: str, out: EventLog) -> None:
        _log.warning(
            "record.dead_lettered",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=reason,
            detail=detail,
        )
        await out.send(dead_letter(record, reason, detail, at=self._clock.now()))
        self.handler.skip(record)

    def _show(self, evaluation: Evaluation) -> None:
        report, performance = evaluation.report, evaluation.report.performance
        metrics.show(report)
        metrics.REPORTS.labels(report.state, report.retrain).inc()
        _log.info(
            "drift.reported",
            report_id=report.report_id,
            model_version=report.model_version,
            end=report.end.isoformat(),
            state=report.state,
            retrain=report.retrain,
            reason=report.reason,
            transactions=report.count,
            alert_rate=report.alert_rate,
            average_precision=performance.average_precision if performance else None,
        )
        if evaluation.request is not None:
            _log.info("retrain.requested", request_id=evaluation.request.request_id, reason=evaluation.request.reason)

    def _measure_state(self) -> None:
        metrics.ROWS.set(self.handler.windows.row_count)
        if (watermark := self.handler.windows.watermark_ms) is not None:
            metrics.WATERMARK.set(watermark / 1000)
        self._log_left_out()

    def _log_left_out(self) -> None:
        """Say what is in no window: at the first, and whenever it has doubled since; a report sets it to nothing."""
        left_out = self.handler.left_out
        count = left_out.ahead + left_out.late + left_out.late_labels
        if count < self._left_out_logged:
            self._left_out_logged = 0
        if not count or count < 2 * self._left_out_logged:
            return
        self._left_out_logged = count
        watermark = self.handler.windows.watermark_ms
        _log.warning(
            "drift.left_out",
            event_time=None if watermark is None else from_ms(watermark).isoformat(),
            transactions=left_out.transactions,
            ahead=left_out.ahead,
            late=left_out.late,
            late_labels=left_out.late_labels,
        )


def _backoff() -> Backoff:
    return Backoff(first_s=0.5, max_s=10.0)


async def _first(*conditions: Coroutine[Any, Any, object], timeout_s: float) -> None:
    tasks = [asyncio.create_task(condition) for condition in conditions]
    await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
