"""``python -m centinela_registry_watcher``"""

from __future__ import annotations

import structlog

from centinela.errors import CentinelaError
from centinela.service import start
from centinela_registry_watcher.bootstrap import run
from centinela_registry_watcher.settings import WatcherSettings


def main() -> None:
    """Watch until SIGTERM or SIGINT; exit 1 where the process must be started anew."""
    settings, stop = start(WatcherSettings, "registry-watcher")
    try:
        run(settings, stop)
    except CentinelaError as error:
        structlog.get_logger().error("process.failed", error=str(error))
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
