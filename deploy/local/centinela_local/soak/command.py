"""``centinela soak``."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from centinela.process.start import load_settings
from centinela_local.commands import make_stack
from centinela_local.demo.command import FAST_TIME
from centinela_local.demo.plan import Plan
from centinela_local.processes.interrupts import interruptible, uninterrupted
from centinela_local.processes.startup import LIMIT_S
from centinela_local.settings import LocalSettings
from centinela_local.soak.report import SAMPLES, TABLE, write_report
from centinela_local.soak.run import Soak
from centinela_local.stack import Stack

LIVE_DAYS = 10_000
SMALL = {"CENTINELA_DEDUPE_IDS": "50000", "CENTINELA_GATEWAY_VERDICTS": "50000"}
"""What is remembered to a bound is filled before growth is judged: with the defaults that would take hours."""
START = date(2001, 1, 1)
"""So early that no day of a long run lies in the future, where the stream refuses it."""


def soak(
    minutes: Annotated[float, typer.Option(min=1, help="How long the live stream lasts.")] = 120.0,
    warm_up: Annotated[float, typer.Option(help="Minutes before growth is judged.")] = 20.0,
    day_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds that a streamed day takes at least.")] = 4.0,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another stream.")] = Plan.seed,
    timeout: Annotated[float, typer.Option(help="Longest wait until all is ready, in seconds.")] = LIMIT_S,
) -> None:
    """Run the demo's load for hours, sampling memory, files, threads, lag and disk. Exit code 1 where something grows
    that must not."""
    console = Console(highlight=False)
    settings = load_settings(LocalSettings)
    stack = make_stack(settings.apart("soak"), console, FAST_TIME | SMALL)
    plan = Plan(seed=seed, start=START, last_day=Plan.history_days + LIVE_DAYS, day_seconds=day_seconds)
    folder = stack.paths.root.parent
    with interruptible():
        stack.down()
        stack.wipe()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            wrong = _endure(stack, plan, console, folder, minutes, warm_up * 60, timeout)
        finally:
            with uninterrupted():
                stack.down()
    console.print(
        "\n".join(wrong) if wrong else "Nothing grew that must not.", style="bold red" if wrong else "bold green"
    )
    console.print(f"Samples, table, picture and summary are in {folder}")
    raise typer.Exit(1 if wrong else 0)


def _endure(
    stack: Stack, plan: Plan, console: Console, folder: Path, minutes: float, warm_up_s: float, limit_s: float
) -> list[str]:
    stack.up(limit_s)
    run = Soak(stack, stack.connection, plan, console, paths=stack.paths, samples=folder / SAMPLES)
    lags = run.endure(minutes)
    wrong = write_report(folder, warm_up_s)
    figures = run.figures()
    failures = [failure for name in ("failed_requests", "failed_posts") for failure in figures[name]]  # type: ignore[attr-defined]
    wrong += [f"failed request: {failure}" for failure in failures[:5]]
    summary = folder / "summary.json"
    summary.write_text(json.dumps({**figures, "lag_at_the_end": lags, "wrong": wrong}, indent=1) + "\n")
    console.print((folder / TABLE).read_text(), markup=False, soft_wrap=True)
    console.print("counting every record ...", style="dim")
    log = run.count()
    summary.write_text(
        json.dumps({**figures, "lag_at_the_end": lags, "wrong": wrong, "log": asdict(log)}, indent=1) + "\n"
    )
    return wrong if log.reconciled else [*wrong, f"the audit does not reconcile: {log}"]
