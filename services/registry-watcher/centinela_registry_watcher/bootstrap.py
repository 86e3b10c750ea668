"""Builds the watcher from its settings and runs it."""

from __future__ import annotations

import threading

from centinela.clock import SystemClock
from centinela.consuming.table_reader import open_table
from centinela.kafka.connect import producer
from centinela.liveness.health import Health
from centinela.model.registry import Registry
from centinela.security.access import api_keys
from centinela.topics import MODEL_EVENTS
from centinela.web.ops import OpsRoute, OpsServer
from centinela.web.server import bind
from centinela_registry_watcher.settings import WatcherSettings
from centinela_registry_watcher.watcher import Watcher


def run(settings: WatcherSettings, stop: threading.Event, *, topic: str = MODEL_EVENTS.name) -> int:
    """Watch until *stop*; the exit code.

    Raises:
        CentinelaError: The process must end: MLflow's address is invalid, or MLflow refuses a request.
    """
    health = Health()
    table, out = open_table(settings, [topic]), producer(settings)
    watcher = Watcher(
        Registry(settings),
        table,
        out,
        model_name=settings.model_name,
        poll_s=settings.watcher_poll_s,
        health=health,
        clock=SystemClock(),
        stop=stop,
        topic=topic,
        patience=settings.patience,
    )

    def hint() -> dict[str, object]:
        watcher.hint()
        return {"status": "looking"}

    ops = OpsServer(
        health,
        bind(settings.ops_host, settings.watcher_port, "CENTINELA_WATCHER_PORT"),
        [OpsRoute("/hint", hint, role="operator")],
        keys=api_keys(settings),
    )
    try:
        watcher.run()
        return 0
    finally:
        ops.close()
        out.close()
        table.close()
