"""``centinela demo``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from centinela import topics
from centinela.kafka.connect import consumer
from centinela.process.start import load_settings
from centinela.settings import Settings
from centinela_local.commands import make_stack
from centinela_local.demo.plan import Plan
from centinela_local.demo.run import Demo
from centinela_local.demo.view import summary_view
from centinela_local.errors import StartFailed
from centinela_local.paths import Paths
from centinela_local.processes.interrupts import interruptible, uninterrupted
from centinela_local.processes.startup import LIMIT_S
from centinela_local.settings import LocalSettings
from centinela_local.stack import Stack

FAST_TIME = {
    "CENTINELA_ARCHIVE_FLUSH_S": "2",
    "CENTINELA_DRIFT_REQUEST_TIMEOUT_DAYS": "60",
}
"""A day passes in seconds here, so a training run, which takes its wall time, must be waited for over weeks of event
time."""


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running at the end; `centinela down` stops it.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another stream.")] = Plan.seed,
    day_seconds: Annotated[
        float, typer.Option(min=0.1, help="Seconds that a streamed day takes at least.")
    ] = Plan.day_seconds,
    timeout: Annotated[float, typer.Option(help="Longest wait until all is ready, in seconds.")] = LIMIT_S,
) -> None:
    """Show the loop: history, a first champion, a new fraud pattern, drift, retraining, a hot swap. Exit code 1 where
    it did not close."""
    console = Console(highlight=False)
    settings = load_settings(LocalSettings)
    everyday = make_stack(settings, console)
    stack = make_stack(settings.apart("demo"), console, FAST_TIME)
    plan = Plan(seed=seed, day_seconds=day_seconds)
    with interruptible():
        if everyday.down():
            console.print("The running stack was stopped; its data stay.")
        stack.down()
        stack.wipe()
        try:
            closed = _play(stack, plan, console, everyday.paths, timeout)
            if keep:
                console.print("Everything still runs; `centinela down` stops it.")
            elif sys.stdin.isatty() and console.is_terminal:
                console.input("Look around at these addresses. Enter stops everything. ")
            else:
                console.print("Everything is being stopped; with --keep these addresses stay.", style="dim")
        finally:
            if not keep:
                with uninterrupted():
                    stack.down()
    raise typer.Exit(0 if closed else 1)


def _play(stack: Stack, plan: Plan, console: Console, places: Paths, limit_s: float) -> bool:
    if stack.external_kafka:
        _require_empty(stack.connection)
    stack.up(limit_s)
    urls = {name: process.url for name, (process, _, _) in stack.states().items()}
    summary = Demo(stack.connection, plan, console, urls=urls, paths=places, activity=stack.activity).run()
    reports = sorted((stack.connection.data_dir / "reports").glob("**/*.html"))
    console.print(
        summary_view(
            summary,
            [
                ("MLflow UI", urls["mlflow"]),
                ("gateway docs", f"{urls['gateway']}/docs"),
                ("drift report", str(reports[-1]) if reports else "none was made"),
                ("picture", str(places.demo / "loop.png")),
                ("logs", str(stack.paths.log)),
            ],
        )
    )
    return summary.closed


def _require_empty(settings: Settings) -> None:
    reader = consumer(settings, group=None)
    try:
        partitions = reader.partitions_of(topics.TRANSACTIONS.name)
        if any(reader.end_offsets(partitions)[p] > reader.beginning_offsets(partitions)[p] for p in partitions):
            raise StartFailed(
                "the demo counts every record, so it needs empty topics, and these brokers hold transactions already: "
                "unset KAFKA_BOOTSTRAP_SERVERS, or name a fresh broker"
            )
    finally:
        reader.close()
