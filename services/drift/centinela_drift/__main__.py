"""``python -m centinela_drift``"""

from __future__ import annotations

from centinela.process.start import serve
from centinela_drift.bootstrap import run
from centinela_drift.settings import DriftSettings


def main() -> None:
    """Run the drift service until SIGTERM or SIGINT."""
    serve(DriftSettings, "drift", run)


if __name__ == "__main__":
    main()
