"""Whole scenarios through the handler: what a season, an attack, a broken feed and a quiet month lead to."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from centinela.events import DriftReported, RetrainRequested
from centinela.times import DAY_MS
from centinela_drift.evaluator import DriftHandler, DriftSnapshot
from centinela_drift.references import reference_of
from centinela_drift.settings import DriftSettings
from tests.support.drift_world import START, Feed, World, day_ms


def live(world: World, days: int, handler: DriftHandler | None = None) -> DriftHandler:
    """Feed *days* of *world* and evaluate whenever a report is due."""
    handler = handler or DriftHandler(DriftSettings())
    reference, feed = reference_of(world.manifest(), world.version), Feed()
    for day in range(days):
        for record in feed.records(*world.day(day)):
            handler.apply(record)
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


def test_a_state_that_was_saved_in_the_middle_goes_on_to_the_same_reports() -> None:
    world = World(attack_from=6)
    reference, feed = reference_of(world.manifest(), "1"), Feed()
    whole, broken = DriftHandler(DriftSettings()), DriftHandler(DriftSettings())
    for day in range(22):
        for record in feed.records(*world.day(day)):
            whole.apply(record)
            broken.apply(record)
            if record.offset == 7:
                values, arrays = broken.snapshot()
                broken = DriftHandler(DriftSettings())
                broken.restore(
                    msgspec.json.decode(msgspec.json.encode(values), type=DriftSnapshot),
                    {name: np.copy(a) for name, a in arrays.items()},
                )
                broken.apply(record)
        for handler in (whole, broken):
            while (end := handler.due()) is not None:
                handler.evaluate(end, reference)
    assert whole.outbox == broken.outbox
    assert len(requests(whole)) == 1
