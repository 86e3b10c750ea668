"""Puts the figures of a run into the document.

``python -m tests.support.faultrun.document REPORT_JSON docs/reliability.md``.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

UNSEEN = "of them on a log without the user's last transactions"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
NAMES = {
    "kill": "kill -9",
    "term": "SIGTERM",
    "kill_predictors": "kill -9 of both predictors and the gateway at once",
    "kill_uncommitted": "kill -9 of a predictor whose transaction is open",
    "kill_unsnapshotted": "kill -9 of a predictor after a commit, before its snapshot",
    "kill_snapshotting": "kill -9 of a predictor that writes a snapshot",
    "kill_loading": "kill -9 of a predictor that loads a promoted model",
    "promote_damaged": "a version promoted whose model file was changed by one bit",
    "broker_killed": "kill -9 of one broker, and a new start",
    "broker_paused": "SIGSTOP of one broker, 3 to 10 s",
    "brokers_killed": "kill -9 of every broker, and a new start",
    "brokers_paused": "SIGSTOP of every broker, 2 to 8 s",
    "predictor_paused": "SIGSTOP of a predictor past session and transaction time-outs (22 to 26 s)",
    "zombie": "SIGSTOP of a predictor, another in its place, SIGCONT: the first is fenced",
    "rebalance_storm": "4 more predictors join and leave",
    "mlflow_away": "MLflow unavailable, kill -9 of a predictor meanwhile",
    "archive_disk_full": "the archive's disk full",
    "snapshot_disk_full": "the disk of feature state full, kill -9 of a predictor meanwhile",
    "snapshot_damaged": "newest snapshots cut short or changed by one bit, kill -9",
    "bundle_damaged": "the served bundle cut short or changed by one bit, kill -9",
    "parquet_damaged": "an archive file damaged; the archive rebuilt",
    "slow_consumer": "a predictor that runs a quarter of the time",
    "retrain_killed": "kill -9 of the trainer at work",
    "offsets_deleted": "committed offsets of a group deleted",
    "codecs_mixed": "producers without compression, with gzip, snappy, lz4 and zstd, record by record",
    "partitions_added": "partitions of topics doubled",
    "timestamps_in_another_unit": "a producer that stamps records in seconds or microseconds",
}


def figures(report: dict[str, Any]) -> str:
    """What a report says, as Markdown."""
    judged = report["judgement"]
    violations = {name: found["count"] for name, found in judged["violations"].items()}
    lines = [
        "## What a run found",
        (
            f"Seed {report['seed']}: {len(report['faults'])} faults, {report['brokers']} brokers,"
            f" {report['items sent']:,} items sent in {report['seconds of load']} s,"
            f" {report['transactions with a verdict']:,} transactions with a verdict; at most"
            f" {report['most records behind']:,} records behind."
            f" {'Nothing was lost, doubled or wrong.' if judged['clean'] else 'VIOLATIONS: ' + str(violations)}"
        ),
        "",
        "| checked | how many | violations |",
        "|---|---:|---:|",
        *(f"| {name} | {count:,} | {violations.get(name, 0)} |" for name, count in judged["checked"].items() if count),
        "",
        (
            f"Of {judged['notes'].get('gateway vectors', 0):,} vectors that the gateway answered with, "
            f"{judged['notes'].get(UNSEEN, 0):,} were of a log without the user's last transactions (see below)."
        ),
        "",
        "| fault | times | at the point meant | overcome | median s to recover | worst |",
        "|---|---:|---:|---:|---:|---:|",
        *_kinds(report["faults"]),
        "",
        "A fault that overlaps others counts until all of them are overcome.",
    ]
    return "\n".join(lines)


def _kinds(faults: list[dict[str, Any]]) -> list[str]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for fault in faults:
        whom = (
            f" {'predictor' if fault['target'].startswith('stream') else fault['target']}"
            if fault["kind"] in ("kill", "term")
            else ""
        )
        groups.setdefault(NAMES[fault["kind"]] + whom, []).append(fault)
    lines = []
    for name, members in sorted(groups.items()):
        meant = [bool(m["hit"]) for m in members if m["hit"] is not None]
        times = [m["recovered_after_s"] for m in members if m["recovered_after_s"] is not None]
        lines.append(
            f"| {name} | {len(members)} | {f'{sum(meant)}' if meant else ''} | {len(times)} |"
            f" {f'{statistics.median(times):.0f}' if times else ''} | {f'{max(times):.0f}' if times else ''} |"
        )
    return lines


def main() -> None:
    """Replace what stands between the marks."""
    report, document = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    text = document.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2] if END in rest else rest
    document.write_text(f"{before}{BEGIN}\n{figures(report)}\n{END}{after}")


if __name__ == "__main__":
    main()
