"""``centinela dlq``: look at dead letters, put them back, or close them."""

from __future__ import annotations

import getpass
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from centinela.clock import SystemClock
from centinela.deadletters.entries import Letter, Place, closing_of, history_of, letter_of
from centinela.deadletters.masking import masked_headers, masked_key, masked_text, masked_value
from centinela.kafka.connect import transactional_producer
from centinela.kafka.port import Record, TransactionalProducer
from centinela.operations.redrive import TRANSACTIONAL_ID, Filter, LetterBox, Survey, open_box
from centinela.process.start import load_settings
from centinela.settings import Settings
from centinela.topics import DLQ_SUFFIX, WITH_DLQ

Topic = Annotated[str | None, typer.Option(help="Topic that the records were in. All, where it is not given.")]
Reason = Annotated[str | None, typer.Option(help="Why they died, as `list` shows it.")]
Partition = Annotated[int | None, typer.Option(help="Partition of the topic that the records were in.")]
Since = Annotated[str | None, typer.Option(help="Died at this time or later (ISO 8601; UTC where it names no zone).")]
Until = Annotated[str | None, typer.Option(help="Died before this time.")]
Source = Annotated[str | None, typer.Option(help="Where they came from: a file, or the `ce_source` of the event.")]
Id = Annotated[str | None, typer.Option("--id", help="Transaction id.")]
Letters = Annotated[
    list[str] | None,
    typer.Option("--letter", help="One letter, as topic:partition:offset; may be given several times."),
]
All = Annotated[bool, typer.Option("--all", help="All open letters: needed where no filter is given.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
By = Annotated[
    str | None, typer.Option(help="Who does it, for the record; the user of this machine where it is not given.")
]


def build_app(
    boxes: Callable[[Sequence[str]], LetterBox], producers: Callable[[], TransactionalProducer]
) -> typer.Typer:
    """The commands, on the DLQs that *boxes* opens and the transactions of what *producers* makes."""
    app = typer.Typer(help="Dead letters: look at them, put them back, or close them.", no_args_is_help=True)

    def box_of(topic: str | None) -> LetterBox:
        return boxes(_dlqs(topic))

    @app.command("list")
    def list_letters(
        topic: Topic = None,
        reason: Reason = None,
        partition: Partition = None,
        since: Since = None,
        until: Until = None,
        source: Source = None,
        transaction_id: Id = None,
        newest: Annotated[int, typer.Option(min=0, help="Open letters shown one by one, the newest first.")] = 10,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    ) -> None:
        """Count letters by topic and reason, and show the newest open ones."""
        wanted = wanted_letters(topic, reason, partition, since, until, source, transaction_id)
        summary = summarise(box_of(topic).survey(wanted), newest)
        if as_json:
            typer.echo(json.dumps(summary))
            return
        console = Console()
        counts = Table(
            "topic", "reason", *(Column(name, justify="right") for name in ("open", "redriven", "dropped")), "newest"
        )
        for row in summary["counts"]:
            counts.add_row(
                row["topic"],
                row["reason"],
                *(f"{row[state]:,}" for state in ("open", "redriven", "dropped")),
                row["newest"],
            )
        console.print(counts)
        if summary["newest"]:
            table = Table(
                Column("letter", no_wrap=True),
                "died at",
                "reason",
                "transaction",
                "source",
                "redrives",
                title="newest open letters",
            )
            for row in summary["newest"]:
                table.add_row(
                    *(
                        str(row[name] or "")
                        for name in ("letter", "at", "reason", "transaction_id", "source", "redrives")
                    )
                )
            console.print(table)

    @app.command()
    def show(
        letter: Annotated[str, typer.Argument(help="Its place, as `list` shows it: topic:partition:offset.")],
        raw: Annotated[
            bool, typer.Option("--raw", help="Write the value's bytes as they are, nothing masked, and nothing else.")
        ] = False,
    ) -> None:
        """Show one letter: why it died, where it was, its headers, its value without card data, and what became of
        it."""
        [place] = _places([letter])
        box = boxes([place.topic])
        record = box.find(place)
        if record is None or closing_of(record) is not None:
            typer.echo(f"no letter at {place}", err=True)
            raise typer.Exit(1)
        if raw:
            sys.stdout.buffer.write(record.value or b"")
            return
        survey = box.survey(Filter(places=frozenset({place})))
        typer.echo(
            json.dumps(description(record, survey, load_settings(Settings).log_salt), indent=2, ensure_ascii=False)
        )

    @app.command()
    def redrive(
        topic: Topic = None,
        reason: Reason = None,
        partition: Partition = None,
        since: Since = None,
        until: Until = None,
        source: Source = None,
        transaction_id: Id = None,
        letter: Letters = None,
        everything: All = False,
        by: By = None,
        yes: Yes = False,
        why: Annotated[str, typer.Option(help="What was mended, for the record.")] = "",
        limit: Annotated[int | None, typer.Option(min=1, help="Records at most.")] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    ) -> None:
        """Put records back on their topic, each once, with their history. Mend what refused them first."""
        wanted = wanted_letters(
            topic, reason, partition, since, until, source, transaction_id, letter, everything=everything
        )
        box = box_of(topic)
        plan = box.plan(wanted, limit)
        for obstacle, count in sorted(plan.obstacles.items()):
            typer.echo(f"{count:,} cannot be redriven: {_OBSTACLES[obstacle]}")
        if not plan.redrive and not plan.answered:
            typer.echo("no open letter to redrive")
            return
        for name, count in sorted(Counter(found.origin.topic for found in plan.redrive if found.origin).items()):
            typer.echo(f"{count:,} to {name}")
        if plan.answered:
            typer.echo(
                f"{len(plan.answered):,} further letters of records that another letter puts back: they will be closed"
            )
        if dry_run:
            return
        _confirm(f"Redrive {len(plan.redrive):,} records?", yes)
        producer = producers()
        try:
            done = box.redrive(producer, wanted, by=by or getpass.getuser(), why=why, limit=limit)
        finally:
            producer.close()
        typer.echo(f"redriven: {len(done.redrive):,} records; closed beside them: {len(done.answered):,} letters")

    @app.command()
    def drop(
        why: Annotated[str, typer.Option(help="Why these records need no outcome, for the record.")],
        topic: Topic = None,
        reason: Reason = None,
        partition: Partition = None,
        since: Since = None,
        until: Until = None,
        source: Source = None,
        transaction_id: Id = None,
        letter: Letters = None,
        everything: All = False,
        by: By = None,
        yes: Yes = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    ) -> None:
        """Close letters without putting anything back. The letters stay where they are; who closed them and why stands
        beside them."""
        if not why.strip():
            raise typer.BadParameter("say why", param_hint="--why")
        wanted = wanted_letters(
            topic, reason, partition, since, until, source, transaction_id, letter, everything=everything
        )
        box = box_of(topic)
        letters = box.survey(wanted).open()
        for (name, cause), count in sorted(Counter((found.place.topic, found.reason) for found in letters).items()):
            typer.echo(f"{count:,} of {name}: {cause}")
        if not letters:
            typer.echo("no open letter to drop")
        if dry_run or not letters:
            return
        _confirm(f"Drop {len(letters):,} letters?", yes)
        producer = producers()
        try:
            typer.echo(f"dropped: {box.drop(producer, wanted, by=by or getpass.getuser(), why=why):,} letters")
        finally:
            producer.close()

    return app


def wanted_letters(
    topic: str | None,
    reason: str | None,
    partition: int | None,
    since: str | None,
    until: str | None,
    source: str | None,
    transaction_id: str | None,
    letters: list[str] | None = None,
    *,
    everything: bool | None = None,
) -> Filter:
    """The filter that the options of a command say.

    Args:
        everything: None where a command may go without any filter; else whether ``--all`` was given.

    Raises:
        typer.BadParameter: A time or a place is none, or neither a filter nor ``--all`` was given.
    """
    found = Filter(
        reason,
        partition,
        _instant(since, "--since"),
        _instant(until, "--until"),
        source,
        transaction_id,
        frozenset(_places(letters or [])),
    )
    if everything is False and found.admits_all and topic is None:
        raise typer.BadParameter("name the letters by a filter, or say --all")
    return found


def summarise(survey: Survey, newest: int) -> dict[str, Any]:
    """Counts by topic and reason, the largest open ones first, and the *newest* open letters."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    last: dict[tuple[str, str], str] = {}
    for letter in survey.letters.values():
        group = (letter.place.topic, letter.reason)
        counts.setdefault(group, Counter())[survey.state(letter)] += 1
        last[group] = max(last.get(group, ""), _time(letter))
    rows = [
        {
            "topic": topic,
            "reason": masked_text(reason),
            "open": states["open"],
            "redriven": states["redriven"],
            "dropped": states["dropped"],
            "newest": last[topic, reason],
        }
        for (topic, reason), states in sorted(counts.items(), key=lambda item: (-item[1]["open"], item[0]))
    ]
    latest = sorted(survey.open(), key=lambda letter: (_time(letter), letter.place), reverse=True)[:newest]
    return {"counts": rows, "newest": [_row(letter) for letter in latest]}


def description(record: Record, survey: Survey, salt: str) -> dict[str, Any]:
    """One letter for people, without card data."""
    letter = letter_of(record)
    headers = masked_headers(record.headers)
    closing = survey.closings.get(letter.place)
    return {
        "letter": str(letter.place),
        "state": survey.state(letter),
        "reason": masked_text(letter.reason),
        "detail": headers.get("dlq.detail", ""),
        "at": _time(letter),
        "position": str(letter.origin) if letter.origin else None,
        "source": masked_text(letter.source),
        "key": masked_key(record.key, salt),
        "headers": {name: text for name, text in headers.items() if name != "redrive.history"},
        "history": [
            {
                "reason": d.reason,
                "at": d.at,
                "position": d.place,
                "letter": d.letter,
                "redriven_at": d.redriven_at,
                "by": d.by,
            }
            for d in history_of(record.headers)
        ],
        "closed": {"as": closing.kind, "by": closing.by, "why": closing.why, "at": closing.at} if closing else None,
        "value": masked_value(record.value, salt),
    }


_OBSTACLES = {
    "never_in_a_topic": "they never were in a topic (rows of a file: mend the file and replay it)",
    "foreign_origin": "their origin is another topic than the one of this DLQ",
    "cut_short": "the letter is less than its record was (too large): send it again from its source",
}


def _row(letter: Letter) -> dict[str, Any]:
    return {
        "letter": str(letter.place),
        "at": _time(letter),
        "reason": masked_text(letter.reason),
        "source": masked_text(letter.source),
        "transaction_id": masked_text(letter.transaction_id) if letter.transaction_id else None,
        "redrives": letter.redrives,
    }


def _time(letter: Letter) -> str:
    return letter.at.astimezone(UTC).isoformat(timespec="seconds") if letter.at else ""


def _dlqs(topic: str | None) -> list[str]:
    known = [t.dlq for t in WITH_DLQ]
    if topic is not None:
        known = [name for name in known if name in (topic, topic + DLQ_SUFFIX)]
        if not known:
            raise typer.BadParameter(
                f"no topic {topic} with dead letters; there are {', '.join(t.name for t in WITH_DLQ)}",
                param_hint="--topic",
            )
    return known


def _instant(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no ISO 8601 time", param_hint=option) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _places(texts: list[str]) -> list[Place]:
    try:
        places = [Place.parse(text) for text in texts]
    except ValueError:
        raise typer.BadParameter("a letter is named as topic:partition:offset") from None
    if any(place.topic not in {t.dlq for t in WITH_DLQ} for place in places):
        raise typer.BadParameter("a letter's topic ends with -dlq and is of the catalogue (`centinela topics list`)")
    return places


def _confirm(question: str, yes: bool) -> None:
    if not yes:
        typer.confirm(question, abort=True)


app = build_app(
    lambda topics: open_box(load_settings(Settings), topics, SystemClock()),
    lambda: transactional_producer(load_settings(Settings), transactional_id=TRANSACTIONAL_ID),
)
