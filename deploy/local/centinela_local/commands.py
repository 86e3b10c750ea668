"""``centinela up``, ``down`` and ``status``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from centinela.process.start import load_settings
from centinela.settings import Settings
from centinela_local.processes.interrupts import interruptible
from centinela_local.processes.startup import LIMIT_S
from centinela_local.settings import LocalSettings
from centinela_local.stack import Stack

_PAGES = {"mlflow": "MLflow UI", "ingest": "ingest API docs", "gateway": "gateway docs"}
_APART = ("demo", "soak")


def make_stack(settings: LocalSettings, console: Console, environment: Mapping[str, str] | None = None) -> Stack:
    """The stack with its real dependencies; its processes get *environment* too."""

    def create_topics(connection: Settings) -> None:
        from centinela.kafka.connect import topic_admin

        admin = topic_admin(connection)
        try:
            admin.create()
        finally:
            admin.close()

    def model_exists(connection: Settings) -> bool:
        from centinela.model.registry import Registry

        return Registry(connection).version_of("champion") is not None

    return Stack(settings, console, create_topics=create_topics, model_exists=model_exists, environment=environment)


def up(timeout: Annotated[float, typer.Option(help="Longest wait until all is ready, in seconds.")] = LIMIT_S) -> None:
    """Start Kafka, MLflow and the services, and wait until they are ready."""
    console = Console()
    stack = make_stack(load_settings(LocalSettings), console)
    with interruptible():
        stack.up(timeout)
    console.print(_addresses(stack))
    console.print("Everything runs. `centinela status` shows it, `centinela down` stops it.")


def down(
    wipe: Annotated[bool, typer.Option("--wipe", help="Remove Kafka's, MLflow's and the services' data too.")] = False,
) -> None:
    """Stop everything that `up`, `demo` or `soak` started. Data stay, under .local and where Docker keeps the
    broker's."""
    console = Console()
    settings = load_settings(LocalSettings)
    stacks = [make_stack(each, console) for each in (settings, *map(settings.apart, _APART))]
    stopped = [stack.down() for stack in stacks]
    if wipe:
        for stack in stacks:
            stack.wipe()
    console.print("Everything is stopped." if any(stopped) else "Nothing was running.")


def status() -> None:
    """What runs, and what it waits for. Exit code 1 where nothing runs, or something is not ready."""
    console = Console()
    settings = load_settings(LocalSettings)
    states = next(
        filter(None, (make_stack(each, console).states() for each in (settings, *map(settings.apart, _APART)))), {}
    )
    if not states:
        console.print("Nothing is running. `centinela up` starts it.")
        raise typer.Exit(1)
    table = Table("process", "state", "pid", "ready", "address", box=None, header_style="bold")
    for name, (process, state, waiting) in states.items():
        table.add_row(
            name,
            state.state.lower(),
            str(state.pid or ""),
            Text("yes", "green") if waiting is None else Text(waiting, "yellow"),
            process.url.removeprefix("http://"),
        )
    console.print(table)
    if any(waiting for _, _, waiting in states.values()):
        raise typer.Exit(1)


def _addresses(stack: Stack) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, (process, _, _) in stack.states().items():
        table.add_row(
            Text(_PAGES.get(name, name)), Text(process.url + ("/docs" if name in ("ingest", "gateway") else ""), "cyan")
        )
    return table
