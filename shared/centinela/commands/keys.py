"""``centinela keys``: create an API key or a signing key, check a list of keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from centinela.model.signing import new_key as new_signing_key
from centinela.security.keys import Role, new_key, parse

app = typer.Typer(help="API keys of the HTTP services.", no_args_is_help=True)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Whose key it is: 1 to 40 of a-z, 0-9 and -.")],
    role: Annotated[
        Role, typer.Option(help="What it may do: producer (transactions, labels), scorer (verdicts), operator.")
    ],
) -> None:
    """Print a new key, this once, and its line for the list of keys, which does not reveal the key."""
    created = new_key(name, role)
    typer.echo("The key, for its owner (it is kept nowhere and cannot be shown again):", err=True)
    typer.echo(created.key)
    typer.echo("\nThe line for the file that CENTINELA_API_KEYS_FILE names; restart the services after it:", err=True)
    typer.echo(str(created.entry))


@app.command()
def signing(name: Annotated[str, typer.Argument(help="Whose key it is: 1 to 40 of a-z, 0-9 and -.")]) -> None:
    """Print a new key that signs models, this once, and the public line by which predictors know it."""
    text, key = new_signing_key(name)
    typer.echo(
        "The key, for the trainer alone, as CENTINELA_MODEL_SIGNING_KEY or in the file that _FILE names:", err=True
    )
    typer.echo(text)
    typer.echo("\nThe public line, for CENTINELA_MODEL_PUBLIC_KEYS or _FILE of everything that loads models:", err=True)
    typer.echo(key.public())


@app.command()
def check(file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A list of keys.")]) -> None:
    """Read a list of keys as the services do, and show names and roles."""
    table = Table("name", "role")
    for entry in parse(file.read_text("utf-8").splitlines()).values():
        table.add_row(entry.name, entry.role)
    Console().print(table)
