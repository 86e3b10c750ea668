"""The ``centinela`` command. Each package adds its commands through the entry-point group ``centinela.commands``."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import typer

from centinela.errors import CentinelaError

GROUP = "centinela.commands"


def build_app(names: set[str] | None = None) -> typer.Typer:
    """The root command with its subcommands; only those in *names* where given (imports stay cheap)."""
    app = typer.Typer(
        name="centinela",
        help="Fraud scoring on Kafka that keeps its own model right.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def root() -> None:
        """Fraud scoring on Kafka that keeps its own model right."""

    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        if names is not None and point.name not in names:
            continue
        command = point.load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=point.name)
        else:
            app.command(name=point.name)(command)
    return app


def main() -> None:
    """Run the command line; a ``CentinelaError`` ends it with one clear line and exit code 2."""
    names = {point.name for point in entry_points(group=GROUP)}
    named = set(sys.argv[1:2]) & names
    try:
        build_app(named or None)()
    except CentinelaError as error:
        typer.echo(f"centinela: {error}", err=True)
        raise SystemExit(2) from error
