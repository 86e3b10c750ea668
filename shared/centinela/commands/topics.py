"""``centinela topics``: the topics of the catalogue on the configured brokers."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.table import Column, Table

from centinela.events import type_name
from centinela.kafka.connect import topic_admin
from centinela.kafka.topic_admin import specifications
from centinela.process.start import load_settings
from centinela.settings import Settings
from centinela.topics import CATALOGUE

app = typer.Typer(help="Create, check or list the Kafka topics.", no_args_is_help=True)
_COLOURS = {"ok": "green", "missing": "red", "differs": "yellow"}


@app.command()
def create() -> None:
    """Create the topics that are missing. Existing topics are left as they are."""
    admin = topic_admin(load_settings(Settings))
    try:
        created = admin.create()
    finally:
        admin.close()
    typer.echo(f"created: {', '.join(created)}" if created else "all topics exist")


@app.command()
def check() -> None:
    """Compare the topics with the catalogue; exit 1 where one is missing or differs."""
    admin = topic_admin(load_settings(Settings))
    try:
        findings = admin.check()
    finally:
        admin.close()
    table = Table("topic", "status", "details")
    for finding in findings:
        colour = _COLOURS[finding.status]
        table.add_row(finding.name, f"[{colour}]{finding.status}[/{colour}]", "; ".join(finding.details))
    Console().print(table)
    if any(finding.status != "ok" for finding in findings):
        raise typer.Exit(1)


@app.command("list")
def list_topics() -> None:
    """Show the catalogue: who writes and reads what. Connects to no broker."""
    partitions = {spec.name: spec.partitions for spec in specifications(load_settings(Settings))}
    table = Table(Column("topic", no_wrap=True), "from -> to", "key", "value", Column("parts", no_wrap=True))
    for topic in CATALOGUE:
        table.add_row(
            topic.name,
            f"{', '.join(topic.producers)} -> {', '.join(topic.consumers)}",
            topic.key,
            "\n".join(type_name(value) for value in topic.values) or "packed block",
            str(partitions[topic.name]),
        )
    Console().print(table)
