"""The loop around the handler: dead letters, reports, waiting, restarts."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from centinela.deadletters.record import DeadLetterFlood
from centinela.errors import DependencyUnavailable, ModelRejected
from centinela.events import DriftReported, TrainingCompleted
from centinela.kafka.port import Record
from centinela.liveness.health import Health
from centinela.testing.clock import FixedClock
from centinela_drift.decision.detection import Reference
from centinela_drift.evaluator import DriftHandler, Evaluation
from centinela_drift.references import BundleReferences, reference_of
from centinela_drift.reporting.report_process import ATTEMPTS, SubprocessReporter
from centinela_drift.service import DriftService, References, Reporter
from centinela_drift.settings import DriftSettings
from centinela_drift.state_store import SnapshotStore
from tests.support.drift_world import NOW, START, FakeEventLog, FakeReferences, FakeReporter, Feed, World


class Rig:
    """A service on fakes with its own snapshots in *folder*."""

    def __init__(
        self, folder: Path, references: References | None = None, reporter: Reporter | None = None, **settings: object
    ) -> None:
        self.settings = DriftSettings(**settings)  # type: ignore[arg-type]
        self.handler, self.log, self.health = DriftHandler(self.settings), FakeEventLog(), Health()
        self.store, self.reporter = SnapshotStore(folder), reporter or FakeReporter()
        self.service = DriftService(
            self.settings,
            self.handler,
            self.store,
            references or FakeReferences(World()),
            self.reporter,
            self.health,
            FixedClock(NOW),
        )
        self.service.restore()

    async def take(self, records: list[Record]) -> None:
        for record in records:
            await self.service.take(record, self.log)

    async def run_until(self, condition: Callable[[], bool]) -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(self.service.run(self.log, stop))
        try:
            async with asyncio.timeout(10):
                while not condition() and not task.done():
                    await asyncio.sleep(0.005)
        finally:
            stop.set()
            await task

    def reports(self) -> list[DriftReported]:
        return [msgspec.json.decode(o.value or b"", type=DriftReported) for o in self.log.of("drift-reports")]


@pytest.fixture
def days() -> Callable[[Feed, range], list[Record]]:
    return lambda feed, span: [record for day in span for record in feed.records(*World(attack_from=4).day(day))]


async def test_bad_records_go_to_their_dead_letters_and_the_good_ones_count(tmp_path: Path) -> None:
    rig, feed = Rig(tmp_path), Feed()
    panes, labels = World().day(0)
    bad = [
        feed.record("feature-panes", 0, b"{"),
        feed.record("feature-panes", 0, None),
        feed.record("labels", 0, b'{"transaction_id": 7}'),
        feed.record("feature-panes", 1, msgspec.structs.replace(panes[0], count=3)),
        feed.record("model-events", 0, b'{"type": "Other"}'),
    ]
    await rig.take([*bad, *feed.records(panes, labels)])
    assert [(o.topic, dict(o.headers)["dlq.reason"]) for o in rig.log.sent] == [
        ("feature-panes-dlq", b"malformed_json"),
        ("feature-panes-dlq", b"empty"),
        ("labels-dlq", b"invalid_field"),
        ("feature-panes-dlq", b"invalid_pane"),
        ("model-events-dlq", b"invalid_field"),
    ]
    assert rig.handler.windows.row_count == 600
    assert len(rig.handler.labels) == len(labels)


async def test_a_tombstone_of_the_compacted_topic_is_no_bad_record(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.take([Feed().record("model-events", 0, None)])
    assert rig.log.sent == []


async def test_a_dead_letter_that_cannot_be_written_leaves_the_record_untaken(tmp_path: Path) -> None:
    rig, bad = Rig(tmp_path), Feed().record("labels", 0, b"{")
    rig.log.refuse = True
    with pytest.raises(DependencyUnavailable):
        await rig.take([bad])
    assert not rig.handler.seen(bad)


async def test_a_flood_of_bad_records_stops_the_service(tmp_path: Path) -> None:
    rig, feed = Rig(tmp_path), Feed()
    with pytest.raises(DeadLetterFlood):
        await rig.take([feed.record("labels", 0, b"{") for _ in range(300)])


async def test_a_record_read_again_is_not_counted_again(tmp_path: Path) -> None:
    rig, records = Rig(tmp_path), Feed().records(*World().day(0))
    await rig.take(records + records)
    assert rig.handler.windows.between("1", 0, 2**62).count == 600


async def test_a_pane_that_no_window_reaches_is_counted_as_late(
    tmp_path: Path, days: Callable[[Feed, range], list[Record]]
) -> None:
    def late() -> float:
        return REGISTRY.get_sample_value("centinela_drift_late_panes_total") or 0.0

    rig, feed, before = Rig(tmp_path), Feed(), late()
    await rig.take(days(feed, range(20)))
    await rig.run_until(lambda: len(rig.log.of("drift-reports")) == 19)
    await rig.take(feed.records(*World().day(0)) + feed.records(*World().day(18)))
    assert late() == before + len(World().day(0)[0])


async def test_what_is_in_no_window_is_said_in_the_log_the_metrics_and_the_status(
    tmp_path: Path, days: Callable[[Feed, range], list[Record]]
) -> None:
    def counted(name: str) -> float:
        return REGISTRY.get_sample_value(f"centinela_drift_{name}_total") or 0.0

    rig, feed, world = Rig(tmp_path), Feed(), World(attack_from=4)
    await rig.take(days(feed, range(20)))
    await rig.run_until(lambda: len(rig.log.of("drift-reports")) == 19)
    before = counted("ahead_transactions"), counted("late_labels")
    old_labels = world.day(0)[1]
    with capture_logs() as logs:
        await rig.take(feed.records([world.stray(400, [7])], old_labels))
        await rig.run_until(lambda: any(line["event"] == "drift.left_out" for line in logs))
    assert (counted("ahead_transactions"), counted("late_labels")) == (before[0] + 1, before[1] + len(old_labels))
    [line] = [line for line in logs if line["event"] == "drift.left_out"]
    assert (line["log_level"], line["ahead"], line["late_labels"]) == ("warning", 1, len(old_labels))
    assert str(line["event_time"]).startswith("2026-03-20")
    assert rig.service.status()["left_out"] == {
        "transactions": 1,
        "ahead": 1,
        "late": 0,
        "labels": len(old_labels),
        "late_labels": len(old_labels),
    }


async def test_reports_are_saved_published_and_told_once(
    tmp_path: Path, days: Callable[[Feed, range], list[Record]]
) -> None:
    rig = Rig(tmp_path)
    await rig.take(days(Feed(), range(20)))
    await rig.run_until(lambda: len(rig.log.of("drift-reports")) == 19)
    assert [r.report_id for r in rig.reports()] == list(dict.fromkeys(r.report_id for r in rig.reports()))
    assert len(rig.log.of("retrain-requests")) == 1
    assert isinstance(rig.reporter, FakeReporter)
    assert [e.report.state for e in rig.reporter.begun] == ["alarm"]
    assert rig.service.status()["waiting_for"] is None


async def test_a_restart_from_the_snapshot_publishes_what_was_left_and_nothing_twice(
    tmp_path: Path,
    days: Callable[[Feed, range], list[Record]],
) -> None:
    records = days(Feed(), range(20))
    first = Rig(tmp_path)
    await first.take(records[: len(records) // 2])
    await first.run_until(lambda: len(first.log.of("drift-reports")) >= 9)
    first.store.close()

    second = Rig(tmp_path)
    await second.take(records)
    await second.run_until(lambda: len(first.reports() + second.reports()) == 19)
    second.store.close()

    whole = Rig(tmp_path / "other")
    await whole.take(records)
    await whole.run_until(lambda: len(whole.log.of("drift-reports")) == 19)
    assert first.reports() + second.reports() == whole.reports()
    assert first.log.of("retrain-requests") + second.log.of("retrain-requests") == whole.log.of("retrain-requests")


async def test_a_report_that_was_not_acknowledged_goes_out_again_after_a_restart(tmp_path: Path) -> None:
    first = Rig(tmp_path)
    await first.take(Feed().records(World().day(0)[0] + World().day(1)[0]))
    first.log.refuse = True
    await first.run_until(lambda: bool(first.handler.outbox))
    assert first.log.sent == []
    first.store.close()

    second = Rig(tmp_path)
    await second.run_until(lambda: bool(second.log.sent))
    assert [r.end for r in second.reports()] == [START + timedelta(days=1)]


async def test_a_log_that_takes_nothing_for_a_while_gets_the_report_when_it_is_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.take(Feed().records(World().day(0)[0] + World().day(1)[0]))
    rig.log.refuse = True

    def back() -> bool:
        rig.log.refuse = rig.log.refuse and not rig.handler.outbox
        return bool(rig.log.sent)

    await rig.run_until(back)
    assert len(rig.reports()) == 1
    assert rig.handler.outbox == []


async def test_while_the_registry_is_away_the_service_says_so_stops_reading_when_full_and_goes_on_after(
    tmp_path: Path,
) -> None:
    references = FakeReferences(World(), failures=1)
    rig = Rig(tmp_path, references, drift_max_rows=1000)
    await rig.take(Feed().records(World().day(0)[0] + World().day(1)[0]))
    waited: list[tuple[dict[str, str], set[str]]] = []

    def reported() -> bool:
        if rig.health.unmet():
            waited.append((rig.health.unmet(), set(rig.log.paused)))
        return bool(rig.log.sent)

    await rig.run_until(reported)
    assert "the reference of version 1: the registry does not answer" in waited[0][0]["registry"]
    assert waited[0][1] == {"feature-panes"}
    assert rig.health.ready
    assert rig.log.paused == set()


async def test_a_version_whose_bundle_is_gone_gives_a_report_that_says_so(tmp_path: Path) -> None:
    class Gone:
        async def get(self, version: str) -> Reference:
            raise ModelRejected("there is no such version")

    rig = Rig(tmp_path, Gone())
    await rig.take(Feed().records(World().day(0)[0] + World().day(1)[0]))
    await rig.run_until(lambda: bool(rig.log.sent))
    [report] = rig.reports()
    assert (report.state, report.reason) == ("insufficient", "the reference of version 1 is not available")


async def test_training_completed_answers_the_request(
    tmp_path: Path, days: Callable[[Feed, range], list[Record]]
) -> None:
    rig = Rig(tmp_path)
    await rig.take(days(Feed(), range(16)))
    await rig.run_until(lambda: bool(rig.log.of("retrain-requests")))
    request_id = rig.handler.policy.in_flight
    assert request_id is not None
    done = TrainingCompleted(
        model_name="FraudDetector", request_id=request_id, outcome="refused", reason="no better", completed_at=START
    )
    await rig.take([Feed().record("model-events", 0, done)])
    assert rig.handler.policy.in_flight is None


async def test_references_are_downloaded_once_and_kept(tmp_path: Path) -> None:
    world, calls = World(), []

    def download(version: str, dest: Path) -> Path:
        calls.append(version)
        return world.write_bundle(dest)

    for _ in range(2):
        kept = BundleReferences(download, tmp_path / "references")
        got = await kept.get("1")
        assert (got.counts == reference_of(world.manifest(), "1").counts).all()
    assert calls == ["1"]
    assert [p.name for p in (tmp_path / "references").iterdir()] == ["1.json"]
    with pytest.raises(ModelRejected):
        await kept.get("../1")


@pytest.fixture
def evaluated(tmp_path: Path) -> tuple[Evaluation, Reference]:
    """A report of a day."""
    handler, feed = DriftHandler(DriftSettings()), Feed()
    for record in feed.records(World().day(0)[0] + World().day(1)[0]):
        handler.apply(record, NOW)
    end, reference = handler.due(), reference_of(World().manifest(), "1")
    assert end is not None
    return handler.evaluate(end, reference), reference


def reporter_of(tmp_path: Path, program: str, timeout_s: float = 10.0, pause_s: float = 0.05) -> SubprocessReporter:
    """Its child runs *program* in the folder of the test."""
    return SubprocessReporter(
        tmp_path / "reports",
        tmp_path / "archive",
        lambda version: tmp_path / version,
        lambda version: None,
        timeout_s,
        (sys.executable, "-c", f"import os, pathlib, time; os.chdir({str(tmp_path)!r})\n{program}"),
        pause_s,
    )


async def idle(reporter: SubprocessReporter) -> None:
    async with asyncio.timeout(30):
        while reporter.running:
            await asyncio.sleep(0.01)


FAILS_TWICE = """
tries = pathlib.Path("tries")
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
if len(tries.read_text()) < 3: raise SystemExit(3)
"""
SLOW_AT_FIRST = """
tries = pathlib.Path("tries")
first = not tries.exists()
tries.touch()
if first: time.sleep(60)
"""


@pytest.mark.parametrize("program", ["pass", FAILS_TWICE])
async def test_a_readable_report_is_made_beside_the_loop_and_tried_again_where_it_fails(
    tmp_path: Path, evaluated: tuple[Evaluation, Reference], program: str
) -> None:
    reporter = reporter_of(tmp_path, program)
    reporter.begin(*evaluated)
    await idle(reporter)
    path = reporter.finished()
    assert path is not None
    assert path.endswith(f"{evaluated[0].report.report_id}.html")
    assert list((tmp_path / "reports").glob("*.spec.json")) == []


async def test_a_readable_report_that_timed_out_on_a_busy_machine_is_tried_again_with_more_time(
    tmp_path: Path, evaluated: tuple[Evaluation, Reference]
) -> None:
    reporter = reporter_of(tmp_path, SLOW_AT_FIRST, timeout_s=2.0)
    reporter.begin(*evaluated)
    await idle(reporter)
    assert reporter.finished() is not None


async def test_a_readable_report_that_always_fails_is_given_up_and_stops_nothing(
    tmp_path: Path, evaluated: tuple[Evaluation, Reference]
) -> None:
    def failures() -> float:
        return REGISTRY.get_sample_value("centinela_drift_evidently_failures_total") or 0.0

    reporter, before = reporter_of(tmp_path, "raise SystemExit(3)", pause_s=0.001), failures()
    with capture_logs() as logs:
        reporter.begin(*evaluated)
        await idle(reporter)
    assert reporter.finished() is None
    assert failures() == before + ATTEMPTS
    assert [line["event"] for line in logs][-1] == "evidently.given_up"


async def test_the_report_of_a_new_alarm_does_not_wait_for_the_attempts_at_an_older_one(
    tmp_path: Path, evaluated: tuple[Evaluation, Reference]
) -> None:
    evaluation, reference = evaluated
    newer = dataclasses.replace(evaluation, report=msgspec.structs.replace(evaluation.report, report_id="newer"))
    program = "import sys; raise SystemExit(0 if 'newer' in sys.argv[1] else 3)"
    reporter = reporter_of(tmp_path, program, pause_s=600.0)
    reporter.begin(evaluation, reference)
    await asyncio.sleep(0)
    reporter.begin(newer, reference)
    await idle(reporter)
    assert (reporter.finished() or "").endswith("newer.html")


async def test_an_alarm_whose_report_was_given_up_or_lost_with_the_process_gets_another(
    tmp_path: Path, days: Callable[[Feed, range], list[Record]]
) -> None:
    rig, feed, reporter = Rig(tmp_path), Feed(), FakeReporter()
    await rig.take(days(feed, range(16)))
    assert isinstance(rig.reporter, FakeReporter)
    await rig.run_until(lambda: isinstance(rig.reporter, FakeReporter) and bool(rig.reporter.begun))
    rig.store.close()

    again = Rig(tmp_path, reporter=reporter)
    await again.take(days(feed, range(16, 18)))
    await again.run_until(lambda: bool(reporter.begun))
    reporter.end("/reports/late.html")
    await again.run_until(lambda: again.handler.report_path == "/reports/late.html")
    assert not again.handler.alarm_unreported
    count = len(reporter.begun)
    await again.take(days(feed, range(18, 20)))
    reported = len(again.reports())
    await again.run_until(lambda: len(again.reports()) > reported)
    assert len(reporter.begun) == count
