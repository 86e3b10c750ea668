"""One report of a run, as JSON and as Markdown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.faultrun.oracle import Judgement
from tests.support.faultrun.plan import SERVICES
from tests.support.faultrun.watch import Happened


def write_report(
    folder: Path, seed: int, facts: dict[str, Any], happened: Sequence[Happened], judgement: Judgement
) -> None:
    """``report.json`` and ``report.md`` in *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    faults = [
        {
            "number": h.fault.number,
            "kind": h.fault.kind,
            "target": h.fault.target,
            "what": h.what,
            "began_s": round(h.began, 1),
            "ended_s": round(h.ended, 1),
            "hit": h.hit,
            "recovered_after_s": h.recovered_s,
            "overlapped": h.overlapped,
            "problems": h.problems,
        }
        for h in happened
    ]
    document = {"seed": seed, **facts, "judgement": judgement.summary(), "faults": faults}
    (folder / "report.json").write_text(json.dumps(document, indent=1, default=str))
    (folder / "report.md").write_text(
        "\n".join([*_head(seed, facts, judgement), "", *kinds_table(happened), "", *_faults_table(happened), ""])
    )


def _head(seed: int, facts: dict[str, Any], judgement: Judgement) -> list[str]:
    summary = judgement.summary()
    lines = [f"# Run of seed {seed}: {'clean' if judgement.clean else 'VIOLATIONS'}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    lines += ["", "| checked | how many | violations |", "|---|---:|---:|"]
    lines += [
        f"| {name} | {count:,} | {len(judgement.violations[name])} |" for name, count in judgement.checked.items()
    ]
    lines += [f"- **{name}**: {detail}" for name, found in summary["violations"].items() for detail in found["first"]]  # type: ignore[attr-defined]
    return [*lines, "", *(f"- {name}: {value}" for name, value in judgement.notes.items())]


def group_of(happened: Happened) -> str:
    """What the fault is called in the table of kinds."""
    fault = happened.fault
    if fault.kind in ("kill", "term"):
        return (
            f"{'kill -9' if fault.kind == 'kill' else 'SIGTERM'}"
            f" {'predictor' if fault.target in SERVICES[:2] else fault.target}"
        )
    return fault.kind.replace("_", " ")


def kinds_table(happened: Sequence[Happened]) -> list[str]:
    """Per kind: how often, how often at the point meant, time to recover."""
    groups: dict[str, list[Happened]] = {}
    for one in happened:
        groups.setdefault(group_of(one), []).append(one)
    lines = ["| fault | times | struck as meant | recovered | median s | worst s |", "|---|---:|---:|---:|---:|---:|"]
    for name, members in sorted(groups.items()):
        meant = [m for m in members if m.hit is not None]
        times = [m.recovered_s for m in members if m.recovered_s is not None]
        lines.append(
            f"| {name} | {len(members)} | {f'{sum(bool(m.hit) for m in meant)} of {len(meant)}' if meant else ''} |"
            f" {len(times)} | {f'{statistics.median(times):.1f}' if times else ''} |"
            f" {f'{max(times):.1f}' if times else ''} |"
        )
    return lines


def _faults_table(happened: Sequence[Happened]) -> list[str]:
    lines = ["| # | at s | fault | lasted s | recovered after s | |", "|---:|---:|---|---:|---:|---|"]
    for h in happened:
        remarks = [
            *(["overlapping others"] if h.overlapped else []),
            *(["missed its point"] if h.hit is False else []),
            *h.problems,
        ]
        after = "not in time" if h.recovered_s is None else f"{h.recovered_s:.1f}"
        lines.append(
            f"| {h.fault.number} | {h.began:.0f} | {h.what} | {h.ended - h.began:.1f} | {after} |"
            f" {'; '.join(remarks)} |"
        )
    return lines
