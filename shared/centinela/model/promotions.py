"""The history of champions, small enough for one tag of the registered model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

HISTORY_TAG = "centinela.promotions"
MAX_TAG_CHARS = 4_800
"""MLflow keeps tags of registered models in a column of 5,000 characters."""

MAX_REASON_CHARS = 200


class Promotion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The alias ``champion`` moved from *previous* to *version*."""

    kind: Literal["promote", "rollback"]
    version: str
    previous: str | None
    at: datetime
    reason: str = ""


def decode_history(tag: str | None) -> tuple[Promotion, ...]:
    """The history in *tag*, oldest first; empty where there is none or somebody else wrote it."""
    if not tag:
        return ()
    try:
        return tuple(msgspec.json.decode(tag, type=list[Promotion]))
    except (msgspec.MsgspecError, RecursionError):
        return ()


def encode_history(history: Sequence[Promotion]) -> str:
    """The tag for *history*; the oldest entries are dropped until it fits."""
    entries = [msgspec.structs.replace(entry, reason=entry.reason[:MAX_REASON_CHARS]) for entry in history]
    while len(text := msgspec.json.encode(entries).decode()) > MAX_TAG_CHARS:
        entries = entries[1:]
    return text


def before(history: Sequence[Promotion], current: str) -> str | None:
    """The champion that a rollback from *current* returns to, or None.

    Rollbacks undo: after promoting 1, 2, 3, a first one returns to 2 and a second one to 1. A move that somebody made
    past the history (in MLflow itself) counts as a promotion.
    """
    stack: list[str] = []

    def push(version: str) -> None:
        if not stack or stack[-1] != version:
            stack.append(version)

    for entry in history:
        if entry.previous is not None:
            push(entry.previous)
        if entry.kind == "promote":
            push(entry.version)
        else:
            while stack and stack[-1] != entry.version:
                stack.pop()
            push(entry.version)
    push(current)
    return stack[-2] if len(stack) > 1 else None
