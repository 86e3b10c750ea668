"""A snapshot's file is named by its position [P]."""

from __future__ import annotations

import re

_NAME = re.compile(r"^(\d{19})\.snapshot$")


def name_of(position: int) -> str:
    """The file name of the snapshot at *position*."""
    return f"{position:019d}.snapshot"


def position_of(name: str) -> int | None:
    """The position that *name* tells; None where it is no snapshot's."""
    match = _NAME.match(name)
    return int(match[1]) if match else None
