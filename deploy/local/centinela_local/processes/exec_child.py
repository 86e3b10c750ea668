"""Becomes one process of the stack, as supervisor starts it.

``python -m centinela_local.processes.exec_child <processes.json> <name>``.

The process gets SIGTERM when supervisor dies, so that nothing outlives it (on Linux).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from centinela_local.processes.parent_death import set_parent_death_signal


def main() -> None:
    """Read the process list, take the environment and priority of the named process, and execute its command."""
    listing, name = sys.argv[1:]
    process = json.loads(Path(listing).read_text())[name]
    set_parent_death_signal(signal.SIGTERM)
    if process["nice"]:
        os.nice(process["nice"])
    command: list[str] = process["command"]
    os.execvpe(command[0], command, {**os.environ, **process["environment"]})


if __name__ == "__main__":
    main()
