"""Runs a command and, when it ends, ends everything that it started.

``python -m centinela_local.processes.process_group COMMAND ...``.

For commands that leave children behind when they end, as MLflow's server does. On Linux it also ends when its parent
dies, and adopts the processes that the command leaves as orphans.
"""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil

from centinela_local.processes.parent_death import adopt_orphans, set_parent_death_signal

_GRACE_S = 4.0


def main() -> int:
    """The command's exit code."""
    signal.signal(signal.SIGTERM, _end)
    set_parent_death_signal(signal.SIGTERM)
    adopt_orphans()
    code = subprocess.Popen(sys.argv[1:]).wait()
    _end_descendants()
    return code


def _end(number: int, _frame: object) -> None:
    _end_descendants()
    sys.exit(128 + number)


def _end_descendants() -> None:
    members = psutil.Process().children(recursive=True)
    for member in members:
        member.terminate()
    _, alive = psutil.wait_procs(members, _GRACE_S)
    for member in alive:
        member.kill()


if __name__ == "__main__":
    sys.exit(main())
