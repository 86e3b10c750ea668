"""The difference between what was announced and what the registry holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from centinela.events import ModelPromoted

Alias = Literal["champion", "challenger"]
ALIASES: tuple[Alias, ...] = ("champion", "challenger")


@dataclass(frozen=True)
class Announcement:
    """What readers of ``model-events`` take for the state of an alias.

    ``disputed``: the log's last word on the alias is not the one with the highest sequence, or two differ on the same
    sequence, because another watcher wrote at the same time. Readers that come later, after compaction, would see only
    the last.
    """

    version: str | None
    sequence: int
    disputed: bool = False


Announced = Mapping[Alias, Announcement]


def with_event(announced: Announced, event: ModelPromoted) -> Announced:
    """*announced* after the next event of the log. The highest sequence counts, and of equal ones the first."""
    known = announced.get(event.alias)
    if known is None or event.sequence > known.sequence:
        now = Announcement(event.model_version, event.sequence)
    elif (event.model_version, event.sequence) == (known.version, known.sequence):
        now = known
    else:
        now = Announcement(known.version, known.sequence, disputed=True)
    return {**announced, event.alias: now}


def diff(announced: Announced, aliases: Mapping[str, str], *, model_name: str, at: datetime) -> list[ModelPromoted]:
    """The events that bring readers from *announced* to *aliases*, in order.

    Args:
        announced: State of the log; aliases never announced are absent.
        aliases: The registry's, alias to version; others than champion and challenger are ignored.
        model_name: The registered model.
        at: When the registry was read.

    Returns:
        Events whose sequences continue from the model's highest announced one; none where nothing differs.
    """
    sequence = max((known.sequence for known in announced.values()), default=0)
    events: list[ModelPromoted] = []
    for alias in ALIASES:
        known, version = announced.get(alias), aliases.get(alias)
        announced_already = version is None if known is None else known.version == version and not known.disputed
        if not announced_already:
            sequence += 1
            events.append(
                ModelPromoted(
                    model_name=model_name,
                    alias=alias,
                    model_version=version,
                    previous_version=known.version if known else None,
                    sequence=sequence,
                    observed_at=at,
                )
            )
    return events


def key_of(event: ModelPromoted) -> bytes:
    """The record key under which compaction keeps the last word on an alias."""
    return f"{event.model_name}:promoted:{event.alias}".encode()
