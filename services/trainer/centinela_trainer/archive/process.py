"""Role ``archive``: writes verdicts and labels to Parquet."""

from __future__ import annotations

import threading

from centinela.consuming.outage import Outage
from centinela.errors import DependencyUnavailable
from centinela.liveness.health import Health
from centinela.web.ops import OpsServer
from centinela.web.server import bind
from centinela_trainer.archive.bootstrap import archive_loop
from centinela_trainer.archive.store import ArchiveStore
from centinela_trainer.settings import TrainerSettings


def run_archive(settings: TrainerSettings, stop: threading.Event) -> int:
    """Archive until *stop*; the exit code."""
    health = Health("kafka")
    ops = OpsServer(health, bind(settings.ops_host, settings.archive_port, "CENTINELA_ARCHIVE_PORT"))
    try:
        store = ArchiveStore(settings.archive_dir)
        if _lock(store, health, stop):
            archive_loop(settings, store, health, stop).run()
    finally:
        ops.close()
    return 0


def _lock(store: ArchiveStore, health: Health, stop: threading.Event) -> bool:
    """Wait until this process is the archive's one writer; False where *stop* came first."""
    outage = Outage(health, stop, "disk")
    while not stop.is_set():
        try:
            store.lock()
        except DependencyUnavailable as error:
            outage.failed(error)
            outage.back_off()
        else:
            outage.over()
            return True
    return False
