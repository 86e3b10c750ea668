"""The Evidently report of an alarm, made for real in its own process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec

from centinela_drift.evaluator import DriftHandler
from centinela_drift.references import reference_of
from centinela_drift.reporting.report_process import SubprocessReporter
from centinela_drift.settings import DriftSettings
from tests.support.drift_world import NOW, Feed, World


async def test_a_report_is_written_as_html_and_json_and_says_what_was_decided_and_on_which_rows(tmp_path: Path) -> None:
    world, feed, handler = World(season=(0, 9)), Feed(), DriftHandler(DriftSettings())
    (tmp_path / "1.json").write_bytes(msgspec.json.encode(world.manifest()))
    for day in range(9):
        for record in feed.records(*world.day(day)):
            handler.apply(record, NOW)
    reference = reference_of(world.manifest(), "1")
    while (end := handler.due()) is not None:
        evaluation = handler.evaluate(end, reference)
    reporter = SubprocessReporter(
        tmp_path / "reports",
        tmp_path / "archive",
        lambda version: tmp_path / f"{version}.json",
        handler.windows.first_seen,
        120.0,
    )
    reporter.begin(evaluation, reference)
    async with asyncio.timeout(150):
        while reporter.running:
            await asyncio.sleep(0.1)

    path = reporter.finished()
    assert path is not None
    page = Path(path).read_text(encoding="utf-8")
    assert "Drift of FraudDetector version 1: warning" in page
    assert "expanded from the panes" in page
    body = json.loads(Path(path).with_suffix(".json").read_text(encoding="utf-8"))
    assert body["centinela"]["report_id"] == evaluation.report.report_id
    assert any("user_count_7d" in str(metric) for metric in body["evidently"]["metrics"])
    assert sorted(p.suffix for p in Path(path).parent.iterdir()) == [".html", ".json"]
