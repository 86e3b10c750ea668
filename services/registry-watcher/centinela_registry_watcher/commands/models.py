"""``centinela models``: the versions in the registry, and which of them is champion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from centinela.errors import PromotionConflict
from centinela.model.registry import CHAMPION, NO_CHAMPION, Registry
from centinela.model.registry_store import UnknownVersion
from centinela.process.start import load_settings
from centinela.settings import Settings

Expect = typer.Option(
    None,
    "--expect",
    metavar="CURRENT",
    help=f"Only if this version is champion now ({NO_CHAMPION}: where there is none).",
)
Reason = typer.Option("", "--reason", help="Kept in the history.")
SHOWN_METRICS = {"average_precision": "AP", "card_precision_at_100": "CP@100"}


def build_app(registry: Callable[[], Registry]) -> typer.Typer:
    """The commands on what *registry* gives."""
    app = typer.Typer(help="List model versions, promote one, undo a promotion.", no_args_is_help=True)

    @app.command("list")
    def list_versions(limit: int = typer.Option(20, "--limit", min=1, max=200, help="Newest versions shown.")) -> None:
        """Show the newest versions with their aliases and metrics."""
        models = registry()
        table = Table(
            "version", "alias", "stage", "kind", *SHOWN_METRICS.values(), "created", "request", title=models.model_name
        )
        for version in models.versions(limit):
            table.add_row(
                version.version,
                f"[bold]{', '.join(version.aliases)}[/bold]",
                *(escape(version.tags.get(tag, "")) for tag in ("stage", "model_kind")),
                *(f"{version.metrics[name]:.3f}" if name in version.metrics else "" for name in SHOWN_METRICS),
                f"{version.created_at:%Y-%m-%d %H:%M:%S}Z",
                escape(version.tags.get("request_id", "")),
            )
        Console().print(table if table.row_count else f"{models.model_name} has no versions yet")

    @app.command()
    def promote(version: str, expect: str | None = Expect, reason: str = Reason) -> None:
        """Make VERSION the champion; exit 1, changing nothing, if the champion is not the one that --expect names."""
        models = registry()
        with _conflicts_end_with_1():
            previous = models.promote(version, expect, reason=reason)
        typer.echo(f"champion of {models.model_name}: {previous or NO_CHAMPION} -> {version}")

    @app.command()
    def rollback(expect: str | None = Expect, reason: str = Reason) -> None:
        """Make the previous champion the champion again; repeated, go back further. Exit 1 if there is none."""
        models = registry()
        previous = models.version_of(CHAMPION)
        with _conflicts_end_with_1():
            version = models.rollback(expect, reason=reason)
        typer.echo(f"champion of {models.model_name}: {previous or NO_CHAMPION} -> {version}")

    @app.command()
    def history() -> None:
        """Show promotions and rollbacks, newest first."""
        models = registry()
        table = Table("at", "what", "from", "to", "reason", title=models.model_name)
        for entry in reversed(models.history()):
            table.add_row(
                f"{entry.at:%Y-%m-%d %H:%M:%S}Z",
                entry.kind,
                entry.previous or NO_CHAMPION,
                entry.version,
                escape(entry.reason),
            )
        Console().print(table if table.row_count else f"{models.model_name} has no history yet")

    return app


@contextmanager
def _conflicts_end_with_1() -> Iterator[None]:
    try:
        yield
    except (PromotionConflict, UnknownVersion) as error:
        typer.echo(f"centinela: nothing was changed: {error}", err=True)
        raise typer.Exit(1) from error


app = build_app(lambda: Registry(load_settings(Settings)))
