"""``centinela acls``: what each user needs on brokers that require authentication."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from centinela.errors import CentinelaError
from centinela.operations import acls
from centinela.process.start import load_settings
from centinela.settings import Settings

app = typer.Typer(help="Rights on Kafka that each user needs.", no_args_is_help=True)
Services = Annotated[list[str] | None, typer.Argument(help="Services, or producer, reader, operator; all by default.")]
Prefix = Annotated[str, typer.Option(help="The user of a service is this and the service's name.")]


@app.command("list")
def list_rights(services: Services = None) -> None:
    """Show the rights. Connects to no broker."""
    table = Table("user", "resource", Column("name", no_wrap=True), "operations")
    for service in _known(services):
        for rule in acls.RIGHTS[service]:
            table.add_row(
                service, rule.resource, rule.name + ("*" if rule.prefixed else ""), ", ".join(rule.operations)
            )
            service = ""
    Console().print(table)


@app.command()
def commands(services: Services = None, prefix: Prefix = "centinela-") -> None:
    """Print the calls of Kafka's own kafka-acls.sh that give the rights."""
    for service in _known(services):
        for line in acls.commands(service, f"User:{prefix}{service}", load_settings(Settings).kafka_bootstrap_servers):
            typer.echo(line)


@app.command()
def create(services: Services = None, prefix: Prefix = "centinela-") -> None:
    """Give the rights on the configured brokers, as a user who may do that. kafka-configs.sh creates the users."""
    count = acls.create(load_settings(Settings), {service: f"User:{prefix}{service}" for service in _known(services)})
    typer.echo(f"{count} entries exist")


def _known(services: list[str] | None) -> list[str]:
    if unknown := set(services or ()) - set(acls.RIGHTS):
        raise CentinelaError(f"no such service: {', '.join(sorted(unknown))}; there are {', '.join(acls.RIGHTS)}")
    return services or list(acls.RIGHTS)
