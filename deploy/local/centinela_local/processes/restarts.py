"""How long a process that keeps ending waits before it is started again.

supervisord restarts a process that ran for a second at once, for ever. One that imports for four seconds and then ends
takes a whole core that way, which a broker that is starting may need.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

FIRST_S, LONGEST_S = 1.0, 60.0
HEALTHY_S = 30.0
"""A process that ran for so long is started again at once, and its history is forgotten."""


class Start(NamedTuple):
    """The last start of a process: when its command ran, on the machine's monotonic clock, and the pause before."""

    at_s: float
    delay_s: float


def pause_before(last: Start | None, now_s: float) -> float:
    """Seconds to wait: none after a healthy spell, else twice as many as before the *last* start, up to a minute.

    A start in the future is that of a process that was ended in its pause; beyond its pause, of another boot.
    """
    if last is None or not -last.delay_s <= now_s - last.at_s < HEALTHY_S:
        return 0.0
    return min(LONGEST_S, max(FIRST_S, 2 * last.delay_s))


class StartFile:
    """Where the last start of the process *name* is kept, next to the process list in *folder*."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}.start.json"

    def read(self) -> Start | None:
        """The last start; None where none is known."""
        try:
            at_s, delay_s = json.loads(self._path.read_text())
            return Start(float(at_s), float(delay_s))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, start: Start) -> None:
        """Keep *start*."""
        aside = self._path.with_suffix(f".{os.getpid()}.part")
        aside.write_text(json.dumps(start))
        aside.replace(self._path)

    def forget(self) -> None:
        """Start at once the next time, as a person asks."""
        self._path.unlink(missing_ok=True)

    def pending_s(self) -> float:
        """Seconds until the pause of the start that is under way ends; 0.0 where there is none."""
        start = self.read()
        return 0.0 if start is None else min(max(0.0, start.at_s - time.monotonic()), start.delay_s)
