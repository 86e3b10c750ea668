"""Settings of the registry-watcher."""

from __future__ import annotations

from pydantic import Field

from centinela.settings import Settings


class WatcherSettings(Settings):
    """How often the registry is read."""

    watcher_port: int = Field(8006, ge=0, le=65535, description="Port of /health, /ready, /metrics and /hint.")
    watcher_poll_s: float = Field(1.0, gt=0, description="Seconds between looks at the registry's aliases.")
