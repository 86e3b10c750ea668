"""Which fields of a transaction mean something here, so that a misspelt one is not taken for a missing value."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches

from centinela.settings import Settings

_REFUSED = re.compile(r"^Object contains unknown field `(?P<name>.+?)`(?: - at `[^`]*`)?$", re.DOTALL)
_LONGEST_SHOWN = 60
_LEAST_ALIKE = 0.75
_SHORTEST_COMPARED = 4


@dataclass(frozen=True)
class KnownFields:
    """The attributes that a transaction may have, and whether others are refused or only reported."""

    attributes: frozenset[str]
    refuse: bool

    def unknown(self, names: Collection[str]) -> tuple[str, ...]:
        """Those of *names* that are not such an attribute, in their order."""
        if self.attributes.issuperset(names):
            return ()
        return tuple(name for name in names if name not in self.attributes)

    def explain(self, name: str, fields: Collection[str]) -> str:
        """What is wrong with the unknown *name*, where *fields* are those of the event itself."""
        shown = name if len(name) <= _LONGEST_SHOWN else name[:_LONGEST_SHOWN] + "..."
        meant = _closest(name[:_LONGEST_SHOWN], sorted({*fields, *self.attributes}))
        hint = f"; did you mean {meant}?" if meant else ""
        return f"{shown} is neither a field here nor an attribute (CENTINELA_ATTRIBUTES, CENTINELA_OTHER_FIELDS){hint}"


def unknown_name(message: str) -> str | None:
    """The field that a strict struct refused, where *message* of msgspec says so."""
    match = _REFUSED.match(message)
    return match["name"] if match else None


def known_fields(settings: Settings, *, refuse: bool) -> KnownFields:
    """The attributes of the configured layout, and the other fields that may be sent."""
    return KnownFields(frozenset((*settings.attributes, *settings.other_fields)), refuse)


def _closest(name: str, candidates: list[str]) -> str | None:
    same = [candidate for candidate in candidates if candidate.casefold() == name.casefold()]
    alike = get_close_matches(name, candidates, 1, _LEAST_ALIKE) if len(name) >= _SHORTEST_COMPARED else []
    return next(iter([*same, *alike]), None)
