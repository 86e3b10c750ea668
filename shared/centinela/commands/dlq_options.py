"""The options by which ``centinela dlq`` selects dead letters."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Annotated, Any, get_type_hints

import typer

from centinela.deadletters.entries import RecordPosition
from centinela.operations.redrive import Filter
from centinela.times import parse_instant
from centinela.topics import DLQ_SUFFIX, WITH_DLQ


@dataclass(frozen=True)
class FilterOptions:
    """The options of every command that selects dead letters."""

    topic: Annotated[str | None, typer.Option(help="Topic that the records were in. All, where it is not given.")] = (
        None
    )
    reason: Annotated[str | None, typer.Option(help="Why they failed, as `list` shows it.")] = None
    partition: Annotated[int | None, typer.Option(help="Partition of the topic that the records were in.")] = None
    since: Annotated[
        str | None,
        typer.Option(help="Failed at this time or later (ISO 8601; UTC where it names no zone)."),
    ] = None
    until: Annotated[str | None, typer.Option(help="Failed before this time.")] = None
    source: Annotated[
        str | None, typer.Option(help="Where they came from: a file, or the `ce_source` of the event.")
    ] = None
    transaction_id: Annotated[str | None, typer.Option("--id", help="Transaction id.")] = None

    def dlqs(self) -> list[str]:
        """The DLQs to read.

        Raises:
            typer.BadParameter: The topic has none.
        """
        names = [t.dlq for t in WITH_DLQ]
        if self.topic is not None:
            names = [name for name in names if name in (self.topic, self.topic + DLQ_SUFFIX)]
            if not names:
                raise typer.BadParameter(
                    f"no topic {self.topic} with dead letters; there are {', '.join(t.name for t in WITH_DLQ)}",
                    param_hint="--topic",
                )
        return names

    def filter(self) -> Filter:
        """The filter that the options describe.

        Raises:
            typer.BadParameter: A time or a position cannot be read, or a selection is required and there is none.
        """
        return Filter(
            self.reason,
            self.partition,
            _instant(self.since, "--since"),
            _instant(self.until, "--until"),
            self.source,
            self.transaction_id,
        )


@dataclass(frozen=True)
class SelectionOptions(FilterOptions):
    """The options of a command that changes something: it must be told which dead letters, or ``--all``."""

    letter: Annotated[
        list[str] | None,
        typer.Option("--letter", help="One dead letter, as topic:partition:offset; may be given several times."),
    ] = None
    everything: Annotated[
        bool, typer.Option("--all", help="All open dead letters: needed where no filter is given.")
    ] = False
    by: Annotated[
        str | None,
        typer.Option(help="Who does it, for the record; the user of this machine where it is not given."),
    ] = None
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False

    def filter(self) -> Filter:
        chosen = super().filter()
        positions = frozenset(parse_position(text) for text in self.letter or [])
        selection = Filter(
            chosen.reason,
            chosen.partition,
            chosen.since,
            chosen.until,
            chosen.source,
            chosen.transaction_id,
            positions,
        )
        if not self.everything and selection.admits_all and self.topic is None:
            raise typer.BadParameter("select dead letters by a filter, or give --all")
        return selection


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """*command* with the fields of its dataclass parameter as options of their own, in its place."""
    signature = inspect.signature(command, eval_str=True)
    [grouped] = [parameter for parameter in signature.parameters.values() if is_dataclass(parameter.annotation)]
    options_type: Any = grouped.annotation
    hints = get_type_hints(options_type, include_extras=True)
    names = [option.name for option in fields(options_type)]

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        options = options_type(**{name: arguments.pop(name) for name in names})
        command(**arguments, **{grouped.name: options})

    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter is not grouped:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        parameters += [
            inspect.Parameter(
                option.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=option.default,
                annotation=hints[option.name],
            )
            for option in fields(options_type)
        ]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__dict__["__signature__"] = inspect.Signature(parameters)
    return run


def parse_position(text: str) -> RecordPosition:
    """The position of a dead letter of the catalogue's topics.

    Raises:
        typer.BadParameter: *text* is not one.
    """
    try:
        position = RecordPosition.parse(text)
    except ValueError:
        raise typer.BadParameter("a dead letter is named as topic:partition:offset") from None
    if position.topic not in {t.dlq for t in WITH_DLQ}:
        raise typer.BadParameter(
            "a dead letter's topic ends with -dlq and is in the catalogue (`centinela topics list`)"
        )
    return position


def _instant(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        return parse_instant(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
