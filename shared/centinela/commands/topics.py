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
from centinela.topics import CATALOGUE, OFFSETS_RETENTION_MINUTES

app = typer.Typer(help="Create, check or list the Kafka topics.", no_args_is_help=True)
_COLOURS = {"ok": "green", "missing": "red", "differs": "yellow"}


@app.command()
def create() -> None:
    """Create the topics that are missing. Existing topics are left as they are."""
    admin = topic_admin(load_settings(Settings))
    try:
        created = admin.create()
        kept_minutes = admin.offsets_retention_minutes()
    finally:
        admin.close()
    typer.echo(f"created: {', '.join(created)}" if created else "all topics exist")
    _warn(offsets_warning(kept_minutes))


@app.command()
def check() -> None:
    """Compare the topics with the catalogue; exit 1 where one is missing or differs."""
    admin = topic_admin(load_settings(Settings))
    try:
        findings = admin.check()
        kept_minutes = admin.offsets_retention_minutes()
    finally:
        admin.close()
    table = Table("topic", "status", "details")
    for finding in findings:
        colour = _COLOURS[finding.status]
        table.add_row(finding.name, f"[{colour}]{finding.status}[/{colour}]", "; ".join(finding.details))
    Console().print(table)
    _warn(offsets_warning(kept_minutes))
    if any(finding.status != "ok" for finding in findings):
        raise typer.Exit(1)


def offsets_warning(kept_minutes: int | None) -> str | None:
    """What to change where the brokers forget a group's offsets before the records that they refer to.

    Args:
        kept_minutes: The brokers' ``offsets.retention.minutes``; None where they do not say.
    """
    if kept_minutes is not None and kept_minutes >= OFFSETS_RETENTION_MINUTES:
        return None
    found = (
        "the brokers do not say how long they keep the offsets of a stopped group (offsets.retention.minutes)"
        if kept_minutes is None
        else f"the brokers keep the offsets of a stopped group for {kept_minutes / 1440:g} days"
        f" (offsets.retention.minutes={kept_minutes})"
    )
    return (
        f"warning: {found}. Set {OFFSETS_RETENTION_MINUTES} there, or do not let services stand still for longer:"
        " docs/reliability.md, Group offsets"
    )


def _warn(text: str | None) -> None:
    if text is not None:
        typer.echo(text, err=True)


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
