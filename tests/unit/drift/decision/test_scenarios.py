"""Whole scenarios through the handler: what a season, an attack, a broken feed and a quiet month lead to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import msgspec
import numpy as np
import pytest

from centinela.events import DriftReported, FeaturePane, RetrainRequested
from centinela.times import DAY_MS
from centinela_drift.evaluator import DriftHandler, DriftSnapshot
from centinela_drift.references import reference_of
from centinela_drift.settings import DriftSettings
from tests.support.drift_world import NOW, START, Feed, World, day_ms


def live(world: World, days: int, handler: DriftHandler | None = None) -> DriftHandler:
    """Feed *days* of *world* and evaluate whenever a report is due."""
    handler = handler or DriftHandler(DriftSettings())
    reference, feed = reference_of(world.manifest(), world.version), Feed()
    for day in range(days):
        for record in feed.records(*world.day(day)):
            handler.apply(record, NOW)
        while (end := handler.due()) is not None:
            handler.evaluate(end, reference)
    return handler


def reports(handler: DriftHandler) -> list[DriftReported]:
    return [
        msgspec.json.decode(o.value or b"", type=DriftReported) for o in handler.outbox if o.topic == "drift-reports"
    ]


def requests(handler: DriftHandler) -> list[RetrainRequested]:
    return [
        msgspec.json.decode(o.value or b"", type=RetrainRequested)
        for o in handler.outbox
        if o.topic == "retrain-requests"
    ]


def test_quiet_weeks_give_a_stable_report_a_day() -> None:
    handler = live(World(), 24)
    assert [r.end for r in reports(handler)] == sorted({r.end for r in reports(handler)})
    assert len(reports(handler)) == 23
    assert {r.state for r in reports(handler)} == {"stable"}
    assert requests(handler) == []
    last = reports(handler)[-1].performance
    assert last is not None
    assert last.frauds > 100
    assert last.average_precision == pytest.approx(last.baseline_average_precision, abs=0.12)


def test_a_new_fraud_pattern_asks_for_a_retrain_after_the_label_delay_with_feature_drift_silent() -> None:
    handler = live(World(attack_from=10), 28)
    assert not any(f.breached for r in reports(handler) for f in r.findings if f.statistic == "psi")
    first = requests(handler)[0]
    assert 17 < (first.as_of - START).days <= 24
    assert first.reason.startswith("average precision fell from")
    assert next(f.statistic for f in first.findings) == "average_precision_fall"
    asking = next(r for r in reports(handler) if r.retrain == "requested")
    assert (asking.state, asking.end) == ("alarm", first.as_of)


def test_a_season_moves_features_and_asks_for_nothing() -> None:
    handler = live(World(season=(8, 30)), 34)
    assert any(f.breached and f.feature == "user_count_7d" for r in reports(handler) for f in r.findings)
    assert requests(handler) == []
    suppressed = [r for r in reports(handler) if r.retrain == "suppressed"]
    assert suppressed
    assert all(r.reason.startswith("drift alone") and r.state == "warning" for r in suppressed)


def test_a_broken_feed_that_costs_performance_is_named_and_asks_for_nothing() -> None:
    handler = live(World(hole_from=8), 30)
    assert requests(handler) == []
    late = reports(handler)[-1]
    assert "data quality: v1 missing" in late.reason
    assert any(f.statistic == "average_precision_fall" and f.breached for f in late.findings)


def test_one_request_only_while_nobody_answers() -> None:
    handler = live(World(attack_from=5), 20)
    assert len(requests(handler)) == 1


def test_memory_holds_the_windows_only() -> None:
    world = World()
    handler = live(world, 40)
    held = handler.windows.row_count / world.per_day
    assert held <= 7 + 7 + 1
    assert len(handler.labels) <= 15 * world.per_day * 0.06
    rows = handler.windows.rows("1", 0, 2**62)
    assert rows["time"].min() >= day_ms(39) - 14 * DAY_MS


def with_strays(world: World, days: Iterable[int], strays: Callable[[int], Sequence[FeaturePane]]) -> DriftHandler:
    """As ``live``, with more panes after those of each day. As in a predictor, a partition's watermark is the greatest
    time it ever saw."""
    handler, reference, feed = DriftHandler(DriftSettings()), reference_of(world.manifest(), world.version), Feed()
    newest: dict[int, datetime] = {}
    for day in days:
        panes, labels = world.day(day)
        for pane in (*panes, *strays(day)):
            newest[pane.partition] = max(pane.watermark, newest.get(pane.partition, pane.watermark))
            seen = msgspec.structs.replace(pane, watermark=newest[pane.partition])
            handler.apply(feed.record("feature-panes", pane.partition, seen), NOW)
        for label in labels:
            handler.apply(feed.record("labels", 0, label), NOW)
        while (end := handler.due()) is not None:
            handler.evaluate(end, reference)
    return handler


@pytest.mark.parametrize(
    "strays",
    [
        lambda day: [World().stray(400)] if day == 3 else [],
        lambda day: [World().stray(day + 1.5)] if day == 3 else [],
        lambda day: [World().stray(400 + day / 100, [5] * 300)],
        lambda day: [World().stray(400 + day / 100, range(8), partition) for partition in range(4)],
    ],
    ids=["one record", "one record a day and a half ahead", "one user, half of the traffic", "one in twenty users"],
)
def test_stray_clocks_change_no_report_and_lose_nothing(strays: Callable[[int], Sequence[FeaturePane]]) -> None:
    """A request without a time, among replayed days of another year."""
    expected = [(r.end, r.state) for r in reports(live(World(), 24))]
    handler = with_strays(World(), range(24), strays)
    assert [(r.end, r.count >= 600) for r in reports(handler)] == [(end, True) for end, _ in expected]
    assert requests(handler) == []
    assert handler.left_out.late == handler.left_out.late_labels == 0
    assert len(handler.labels) > 100


def test_what_is_too_far_ahead_is_a_finding_and_from_a_twentieth_on_a_fault() -> None:
    few = with_strays(World(), range(5), lambda day: [World().stray(400, [1, 2])] if day == 4 else [])
    [finding] = [f for f in reports(few)[-1].findings if f.statistic == "data_quality.ahead"]
    assert finding.value == pytest.approx(2 / 602, rel=0.01)
    assert not finding.breached
    assert reports(few)[-1].state == "stable"

    many = with_strays(World(), range(5), lambda day: [World().stray(400, range(100))] if day == 4 else [])
    last = reports(many)[-1]
    assert [f.breached for f in last.findings if f.statistic == "data_quality.ahead"] == [True]
    assert last.state == "warning"
    assert "data quality: ahead" in last.reason


@pytest.mark.parametrize("gap", [3, 365])
def test_a_replay_of_other_days_moves_time_within_three_days_of_it(gap: int) -> None:
    """Fourteen hundred transactions, by ``JUMP_MEMORY``: 600 come a day."""
    days = [*range(10), *range(10 + gap, 24 + gap)]
    handler = with_strays(World(), days, lambda day: [])
    ends = [(r.end - START).days for r in reports(handler)]
    assert ends[:9] == list(range(1, 10))
    assert set(range(10 + gap + 1, 24 + gap)) <= set(ends)
    assert handler.left_out.late == 0

    reached = with_strays(World(), days[:13], lambda day: [])
    assert (reports(reached)[-1].end - START).days >= 10 + gap + 1


def test_what_is_older_than_any_window_is_a_finding_with_its_labels() -> None:
    world, feed = World(), Feed()
    handler = live(world, 20)
    for record in [*feed.records(*world.day(0)), *feed.records(*world.day(20)), *feed.records(*world.day(21))]:
        handler.apply(record._replace(offset=record.offset + 10_000), NOW)
    end = handler.due()
    assert end is not None
    report = handler.evaluate(end, reference_of(world.manifest(), "1")).report
    late = {f.statistic: f for f in report.findings}
    assert late["data_quality.late"].value == pytest.approx(1 / 3, abs=0.01)
    assert late["data_quality.late"].breached
    assert 0 < late["late_labels"].value < 0.5
    assert not late["late_labels"].breached
    assert (handler.left_out.late, handler.left_out.late_labels) == (0, 0)


def test_a_state_that_was_saved_in_the_middle_goes_on_to_the_same_reports() -> None:
    world = World(attack_from=6)
    reference, feed = reference_of(world.manifest(), "1"), Feed()
    whole, broken = DriftHandler(DriftSettings()), DriftHandler(DriftSettings())
    for day in range(22):
        for record in feed.records(*world.day(day)):
            whole.apply(record, NOW)
            broken.apply(record, NOW)
            if record.offset == 7:
                values, arrays = broken.snapshot()
                broken = DriftHandler(DriftSettings())
                broken.restore(
                    msgspec.json.decode(msgspec.json.encode(values), type=DriftSnapshot),
                    {name: np.copy(a) for name, a in arrays.items()},
                )
                broken.apply(record, NOW)
        for handler in (whole, broken):
            while (end := handler.due()) is not None:
                handler.evaluate(end, reference)
    assert whole.outbox == broken.outbox
    assert len(requests(whole)) == 1
