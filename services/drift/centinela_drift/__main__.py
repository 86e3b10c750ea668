"""``python -m centinela_drift``"""

from __future__ import annotations

import sys

from centinela.process.start import serve
from centinela_drift.bootstrap import run
from centinela_drift.settings import DriftSettings


def main() -> int:
    """Run the drift service until SIGTERM or SIGINT; the exit code."""
    return serve(DriftSettings, "drift", run)


if __name__ == "__main__":
    sys.exit(main())
