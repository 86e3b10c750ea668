"""Becomes one process of the stack, as supervisor starts it.

``python -m centinela_local.processes.exec_child <processes.json> <name>``.

The process gets SIGTERM when supervisor dies, so that nothing outlives it (on Linux). One that ended soon after its
last start waits first: see ``restarts``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from centinela_local.processes.parent_death import set_parent_death_signal
from centinela_local.processes.restarts import Start, StartFile, pause_before


def main() -> None:
    """Read the process list, pause where the named process keeps ending, take its environment and priority, and execute
    its command."""
    listing, name = sys.argv[1:]
    process = json.loads(Path(listing).read_text())[name]
    set_parent_death_signal(signal.SIGTERM)
    _pause(name, StartFile(Path(listing).parent, name))
    if process["nice"]:
        os.nice(process["nice"])
    command: list[str] = process["command"]
    os.execvpe(command[0], command, {**os.environ, **process["environment"]})


def _pause(name: str, file: StartFile) -> None:
    last, now_s = file.read(), time.monotonic()
    delay_s = pause_before(last, now_s)
    file.write(Start(now_s + delay_s, delay_s))
    if last is not None and delay_s > 0:
        line = {
            "timestamp": datetime.now(UTC).isoformat(),
            "level": "warning",
            "message": "process.restart_delayed",
            "service": name,
            "ran_s": round(now_s - last.at_s, 1),
            "delay_s": delay_s,
        }
        print(json.dumps(line), file=sys.stderr, flush=True)
        time.sleep(delay_s)


if __name__ == "__main__":
    main()
