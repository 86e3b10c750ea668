"""``python -m centinela_registry_watcher``"""

from __future__ import annotations

from centinela.process.start import serve
from centinela_registry_watcher.bootstrap import run
from centinela_registry_watcher.settings import WatcherSettings


def main() -> None:
    """Watch until SIGTERM or SIGINT."""
    serve(WatcherSettings, "registry-watcher", run)


if __name__ == "__main__":
    main()
