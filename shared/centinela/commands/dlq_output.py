"""What ``centinela dlq`` shows of dead letters: counts, rows and one in full, without card data."""

from __future__ import annotations

from collections import Counter
from datetime import UTC
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from centinela.deadletters.entries import DeadLetterEntry, history_of, read_entry
from centinela.deadletters.masking import masked_headers, masked_key, masked_text, masked_value
from centinela.kafka.port import Record
from centinela.operations.redrive import Survey

_STATES = ("open", "redriven", "dropped")
_COLUMNS = ("letter", "at", "reason", "transaction_id", "source", "redrives")


def summarise(survey: Survey, newest: int) -> dict[str, Any]:
    """Counts by topic and reason, the largest open ones first, and the *newest* open dead letters."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    last: dict[tuple[str, str], str] = {}
    for entry in survey.entries.values():
        group = (entry.position.topic, entry.reason)
        counts.setdefault(group, Counter())[survey.state(entry)] += 1
        last[group] = max(last.get(group, ""), _time(entry))
    rows = [
        {
            "topic": topic,
            "reason": masked_text(reason),
            "open": states["open"],
            "redriven": states["redriven"],
            "dropped": states["dropped"],
            "newest": last[topic, reason],
        }
        for (topic, reason), states in sorted(counts.items(), key=lambda item: (-item[1]["open"], item[0]))
    ]
    latest = sorted(survey.open(), key=lambda entry: (_time(entry), entry.position), reverse=True)[:newest]
    return {"counts": rows, "newest": [_row(entry) for entry in latest]}


def print_summary(summary: dict[str, Any]) -> None:
    """What ``summarise`` returned, as tables."""
    console = Console()
    counts = Table("topic", "reason", *(Column(name, justify="right") for name in _STATES), "newest")
    for row in summary["counts"]:
        counts.add_row(row["topic"], row["reason"], *(f"{row[state]:,}" for state in _STATES), row["newest"])
    console.print(counts)
    if summary["newest"]:
        table = Table(
            Column("letter", no_wrap=True),
            "failed at",
            "reason",
            "transaction",
            "source",
            "redrives",
            title="newest open dead letters",
        )
        for row in summary["newest"]:
            table.add_row(*(str(row[name] or "") for name in _COLUMNS))
        console.print(table)


def description(record: Record, survey: Survey, salt: str) -> dict[str, Any]:
    """One dead letter in full, without card data."""
    entry = read_entry(record)
    headers = masked_headers(record.headers)
    resolution = survey.resolutions.get(entry.position)
    return {
        "letter": str(entry.position),
        "state": survey.state(entry),
        "reason": masked_text(entry.reason),
        "detail": headers.get("dlq.detail", ""),
        "at": _time(entry),
        "position": str(entry.origin) if entry.origin else None,
        "source": masked_text(entry.source),
        "key": masked_key(record.key, salt),
        "headers": {name: text for name, text in headers.items() if name != "redrive.history"},
        "history": [
            {
                "reason": failure.reason,
                "at": failure.at,
                "position": failure.position,
                "letter": failure.dead_letter,
                "redriven_at": failure.redriven_at,
                "by": failure.by,
            }
            for failure in history_of(record.headers)
        ],
        "closed": {"as": resolution.kind, "by": resolution.by, "why": resolution.why, "at": resolution.at}
        if resolution
        else None,
        "value": masked_value(record.value, salt),
    }


def _row(entry: DeadLetterEntry) -> dict[str, Any]:
    return {
        "letter": str(entry.position),
        "at": _time(entry),
        "reason": masked_text(entry.reason),
        "source": masked_text(entry.source),
        "transaction_id": masked_text(entry.transaction_id) if entry.transaction_id else None,
        "redrives": entry.redrives,
    }


def _time(entry: DeadLetterEntry) -> str:
    return entry.at.astimezone(UTC).isoformat(timespec="seconds") if entry.at else ""
