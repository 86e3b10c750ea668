"""Runs a command, and ends with it all that it started.

``python -m centinela_local.processes.process_group COMMAND ...``.

For commands that leave their own children behind when they end, as MLflow's server does. On Linux it also ends when its
parent dies, and takes in whom the command leaves as orphans.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys

import psutil

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
GRACE_S = 4.0


def main() -> int:
    """The command's exit code."""
    signal.signal(signal.SIGTERM, _end)
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
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
    _, alive = psutil.wait_procs(members, GRACE_S)
    for member in alive:
        member.kill()


if __name__ == "__main__":
    sys.exit(main())
