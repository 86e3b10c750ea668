"""``python -m centinela_drift``"""

from __future__ import annotations

import structlog

from centinela.errors import CentinelaError
from centinela.service import start
from centinela_drift.bootstrap import run
from centinela_drift.settings import DriftSettings


def main() -> None:
    """Run the drift service until SIGTERM or SIGINT; exit 1 where it must be started anew."""
    settings, stop = start(DriftSettings, "drift")
    try:
        run(settings, stop)
    except CentinelaError as error:
        structlog.get_logger().error("process.failed", error=str(error))
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
