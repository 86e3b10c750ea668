"""Role ``serve``: answers retrain requests."""

from __future__ import annotations

import threading

from prometheus_client import REGISTRY

from centinela.liveness.health import Health
from centinela.web.ops import OpsServer
from centinela.web.server import bind
from centinela_trainer.retraining.bootstrap import snapshot_pusher, trainer_loop
from centinela_trainer.settings import TrainerSettings
from centinela_trainer.skew.metrics import SkewCollector


def run_trainer(settings: TrainerSettings, stop: threading.Event) -> int:
    """Answer requests until *stop*; the exit code."""
    health = Health("kafka")
    REGISTRY.register(SkewCollector(settings.skew_path))
    pusher = snapshot_pusher(settings)
    ops = OpsServer(health, bind(settings.ops_host, settings.trainer_port, "CENTINELA_TRAINER_PORT"))
    try:
        if pusher is not None:
            pusher.start()
        trainer_loop(settings, health, stop, answered=pusher.wake if pusher is not None else None).run()
    finally:
        ops.close()
        if pusher is not None:
            pusher.close()
    return 0
