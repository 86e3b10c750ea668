"""``python -m centinela_registry_watcher``"""

from __future__ import annotations

import sys

from centinela.process.start import serve
from centinela_registry_watcher.bootstrap import run
from centinela_registry_watcher.settings import WatcherSettings


def main() -> int:
    """Watch until SIGTERM or SIGINT; the exit code."""
    return serve(WatcherSettings, "registry-watcher", run)


if __name__ == "__main__":
    sys.exit(main())
