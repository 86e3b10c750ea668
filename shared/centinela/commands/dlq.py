"""``centinela dlq``: look at dead letters, put their records back, or drop them."""

from __future__ import annotations

import getpass
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from centinela.clock import SystemClock
from centinela.commands.dlq_options import FilterOptions, SelectionOptions, parse_position, with_options
from centinela.commands.dlq_output import description, print_summary, summarise
from centinela.deadletters.entries import is_resolution
from centinela.kafka.connect import transactional_producer
from centinela.kafka.port import TransactionalProducer
from centinela.operations.redrive import TRANSACTIONAL_ID, DeadLetterStore, Filter, RedrivePlan, open_store
from centinela.process.start import load_settings
from centinela.settings import Settings

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
_OBSTACLES = {
    "never_in_a_topic": "they never were in a topic (rows of a file: fix the file and replay it)",
    "foreign_origin": "their origin is another topic than the one of this DLQ",
    "cut_short": "the dead letter is less than its record was (too large): send it again from its source",
}

app = typer.Typer(help="Dead letters: look at them, put their records back, or drop them.", no_args_is_help=True)


@dataclass(frozen=True)
class Clients:
    """What the commands use Kafka by: the store of some DLQs, and a producer for transactions on them."""

    store: Callable[[Sequence[str]], DeadLetterStore]
    producer: Callable[[], TransactionalProducer]


@app.callback()
def connect(context: typer.Context) -> None:
    """Dead letters: look at them, put their records back, or drop them."""
    if context.obj is None:
        context.obj = Clients(
            lambda topics: open_store(load_settings(Settings), topics, SystemClock()),
            lambda: transactional_producer(load_settings(Settings), transactional_id=TRANSACTIONAL_ID),
        )


@app.command("list")
@with_options
def list_entries(
    context: typer.Context,
    options: FilterOptions,
    newest: Annotated[int, typer.Option(min=0, help="Open dead letters shown one by one, the newest first.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Count dead letters by topic and reason, and show the newest open ones."""
    summary = summarise(_store(context, options).survey(options.filter()), newest)
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        print_summary(summary)


@app.command()
def show(
    context: typer.Context,
    letter: Annotated[str, typer.Argument(help="Its position, as `list` shows it: topic:partition:offset.")],
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the value's bytes as they are, nothing masked, and nothing else.")
    ] = False,
) -> None:
    """Show one dead letter: why it failed, where it was, its headers, its value without card data, and what became of
    it."""
    position = parse_position(letter)
    store = _clients(context).store([position.topic])
    record = store.find(position)
    if record is None or is_resolution(record):
        typer.echo(f"no dead letter at {position}", err=True)
        raise typer.Exit(1)
    if raw:
        sys.stdout.buffer.write(record.value or b"")
        return
    survey = store.survey(Filter(positions=frozenset({position})))
    typer.echo(json.dumps(description(record, survey, load_settings(Settings).log_salt), indent=2, ensure_ascii=False))


@app.command()
@with_options
def redrive(
    context: typer.Context,
    options: SelectionOptions,
    why: Annotated[str, typer.Option(help="What was fixed, for the record.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Records at most.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Put records back on their topic, each once, with their history. Fix what refused them first."""
    selection = options.filter()
    store = _store(context, options)
    plan = store.plan(selection, limit)
    _print_plan(plan)
    if dry_run or not (plan.redrive or plan.redriven_with):
        return
    _confirm(f"Redrive {len(plan.redrive):,} records?", options)
    with _producer(context) as producer:
        done = store.redrive(producer, selection, by=options.by or getpass.getuser(), why=why, limit=limit)
    typer.echo(f"redriven: {len(done.redrive):,} records; resolved with them: {len(done.redriven_with):,} dead letters")


@app.command()
@with_options
def drop(
    context: typer.Context,
    why: Annotated[str, typer.Option(help="Why these records need no outcome, for the record.")],
    options: SelectionOptions,
    dry_run: DryRun = False,
) -> None:
    """Resolve dead letters without putting anything back. They stay in their topic, with a record of who dropped them
    and why."""
    if not why.strip():
        raise typer.BadParameter("say why", param_hint="--why")
    selection = options.filter()
    store = _store(context, options)
    entries = store.survey(selection).open()
    for (name, reason), count in sorted(Counter((entry.position.topic, entry.reason) for entry in entries).items()):
        typer.echo(f"{count:,} of {name}: {reason}")
    if not entries:
        typer.echo("no open dead letter to drop")
    if dry_run or not entries:
        return
    _confirm(f"Drop {len(entries):,} dead letters?", options)
    with _producer(context) as producer:
        count = store.drop(producer, selection, by=options.by or getpass.getuser(), why=why)
    typer.echo(f"dropped: {count:,} dead letters")


def _print_plan(plan: RedrivePlan) -> None:
    for obstacle, count in sorted(plan.obstacles.items()):
        typer.echo(f"{count:,} cannot be redriven: {_OBSTACLES[obstacle]}")
    if not plan.redrive and not plan.redriven_with:
        typer.echo("no open dead letter to redrive")
        return
    for name, count in sorted(Counter(entry.origin.topic for entry in plan.redrive if entry.origin).items()):
        typer.echo(f"{count:,} to {name}")
    if plan.redriven_with:
        typer.echo(
            f"{len(plan.redriven_with):,} further dead letters of records that another one puts back: they will be"
            " resolved with it"
        )


def _clients(context: typer.Context) -> Clients:
    assert isinstance(context.obj, Clients)
    return context.obj


def _store(context: typer.Context, options: FilterOptions) -> DeadLetterStore:
    return _clients(context).store(options.dlqs())


@contextmanager
def _producer(context: typer.Context) -> Iterator[TransactionalProducer]:
    producer = _clients(context).producer()
    try:
        yield producer
    finally:
        producer.close()


def _confirm(question: str, options: SelectionOptions) -> None:
    if not options.yes:
        typer.confirm(question, abort=True)
