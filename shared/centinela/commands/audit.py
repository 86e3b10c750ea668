"""``centinela audit``: does every transaction in the log have exactly one outcome?"""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from centinela import topics
from centinela.kafka.connect import consumer
from centinela.operations.reconcile import LogAudit, Reconciliation
from centinela.process.start import load_settings
from centinela.settings import Settings

_SHOWN = 20


def audit(
    wait: Annotated[float, typer.Option(help="Seconds to wait until the predictor has caught up.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Reconcile transactions with verdicts and dead letters, read_committed; exit 1 where they do not match."""
    reader = consumer(load_settings(Settings), group=None)
    try:
        reconciled = report(LogAudit(reader), wait, as_json=as_json)
    finally:
        reader.close()
    if not reconciled:
        raise typer.Exit(1)


def report(log_audit: LogAudit, wait_s: float, *, as_json: bool) -> bool:
    """Print what *log_audit* finds; whether the log reconciles."""
    result = log_audit.read_until_reconciled(wait_s)
    log, verdicts, dlq = topics.TRANSACTIONS.name, topics.PREDICTIONS.name, topics.TRANSACTIONS.dlq
    problems = [
        ("missing", log, result.missing),
        ("repeated", verdicts, result.repeated),
        ("unexpected", verdicts, result.unexpected),
        ("repeated dead letters", log, result.repeated_letters),
        ("redriven twice", dlq, result.redrives.twice),
        ("redriven but not in the log", dlq, result.redrives.lost),
        ("redriven but not resolved", dlq, result.redrives.unresolved),
    ]
    samples = {
        name: log_audit.ids_at(topic, positions, _SHOWN) for name, topic, positions in problems if len(positions)
    }
    if as_json:
        typer.echo(json.dumps(_counts(result) | {"reconciled": result.reconciled, "first_ids": samples}))
    else:
        _show(result, samples)
    return result.reconciled


def _counts(result: Reconciliation) -> dict[str, int]:
    return {
        "records": result.records,
        "transactions": result.transactions,
        "duplicates": result.duplicates,
        "undecodable": result.undecodable,
        "verdicts": result.verdicts,
        "dead_letters": result.dead_letters,
        "rejected_rows": result.rejected_rows,
        "missing": len(result.missing),
        "repeated": len(result.repeated),
        "unexpected": len(result.unexpected),
        "repeated_dead_letters": len(result.repeated_letters),
        "stray_dead_letters": result.stray_letters,
        "open_dead_letters": result.open_letters,
        "redriven": result.redrives.redriven,
        "dropped": result.redrives.dropped,
        "redriven_twice": len(result.redrives.twice),
        "redriven_not_in_log": len(result.redrives.lost),
        "redriven_not_closed": len(result.redrives.unresolved),
    }


def _show(result: Reconciliation, samples: dict[str, list[str]]) -> None:
    console = Console()
    table = Table("count", "records", title="transactions compared with verdicts and dead letters (read_committed)")
    for name, count in _counts(result).items():
        table.add_row(name.replace("_", " "), f"{count:,}")
    console.print(table)
    for name, ids in samples.items():
        console.print(f"{name}: {', '.join(ids)}{' ...' if len(ids) == _SHOWN else ''}", markup=False)
    if not result.log_is_whole:
        console.print("retention has cut the beginning of the log: outcomes without their transaction are not an error")
    console.print("[green]reconciled[/green]" if result.reconciled else "[red]not reconciled[/red]")
