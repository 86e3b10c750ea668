"""The Feast role as a process: its parts, its start and its end."""

from __future__ import annotations

import threading

import structlog

from centinela.clock import SystemClock
from centinela.consuming.carry_over import carry_over
from centinela.consuming.loop import SinkLoop
from centinela.consuming.options import LoopOptions
from centinela.consuming.outage import Outage
from centinela.deadletters.record import DeadLetterCap
from centinela.errors import CentinelaError, DependencyUnavailable
from centinela.groups import FEAST, ConsumerGroup
from centinela.kafka import connect
from centinela.liveness.health import Health
from centinela.process.start import failed
from centinela.topics import PREDICTIONS
from centinela.web.ops import OpsServer
from centinela.web.server import bind
from centinela_predictor.feast.settings import FeastSettings
from centinela_predictor.feast.sink import FeastSink, Pusher

SERVICE = "feast"
_log = structlog.get_logger(__name__)


def build_loop(
    settings: FeastSettings,
    pusher: Pusher,
    health: Health,
    stop: threading.Event,
    *,
    topic: str = PREDICTIONS.name,
    group: ConsumerGroup = FEAST,
) -> SinkLoop:
    """Reads *topic* from its beginning at first; offsets are committed after the push."""
    return SinkLoop(
        connect.consumer(settings, group=group.name, instance_id=f"{group.name}-{settings.slot}"),
        connect.producer(settings),
        FeastSink(pusher, SystemClock()),
        topics=[topic],
        health=health,
        stop=stop,
        options=LoopOptions(
            batch=settings.feast_batch,
            service=SERVICE,
            cap=DeadLetterCap(settings.dead_letter_max_share),
            patience=settings.patience,
            carry_over=carry_over(settings, group),
        ),
    )


def prepare(settings: FeastSettings, health: Health, stop: threading.Event) -> Pusher | None:
    """Apply the definitions; the pusher to their views, or None where the process stops first.

    Raises:
        ValueError: The definitions name no push source.
    """
    from centinela.featurestore.push import FeaturePusher
    from centinela.featurestore.repository import apply, open_store

    outage = Outage(health, stop, "feature store")
    while not stop.is_set():
        try:
            store = open_store(settings.feast_repo, settings.data_dir, settings.feast_redis)
            apply(store, settings.feast_repo, settings.data_dir)
        except DependencyUnavailable as error:
            outage.failed(error)
            outage.back_off()
        else:
            outage.over()
            pusher = FeaturePusher(store)
            _log.info(
                "features.applied",
                views=[target.source for target in pusher.targets],
                online=store.config.online_store.type,
            )
            return pusher
    return None


def run_feast(settings: FeastSettings, stop: threading.Event) -> int:
    """Push until *stop*; the exit code."""
    health = Health("definitions", "kafka")
    health.wait_for("definitions", "the feature definitions are being applied")
    ops = OpsServer(health, bind(settings.ops_host, settings.feast_port, "CENTINELA_FEAST_PORT"))
    try:
        pusher = prepare(settings, health, stop)
        if pusher is not None:
            health.met("definitions")
            build_loop(settings, pusher, health, stop).run()
    except CentinelaError as error:
        health.died(f"{type(error).__name__}: {error}")
    finally:
        ops.close()
        _log.info("process.stopped", port=ops.port)
    return 0 if health.live else failed(health.reason or "")
