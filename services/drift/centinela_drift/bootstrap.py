"""Builds the service from its settings and runs it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from centinela.clock import Clock, SystemClock
from centinela.errors import CentinelaError, DependencyUnavailable
from centinela.kafka.connect import topic_admin
from centinela.kafka.topic_admin import TopicSpec
from centinela.liveness.dependency import DependencyState
from centinela.liveness.health import Health
from centinela.liveness.retry import Backoff
from centinela.process.start import failed
from centinela.settings import Settings
from centinela.topics import DLQ_SUFFIX
from centinela.web.ops import OpsRoute, OpsServer
from centinela.web.server import bind
from centinela_drift.evaluator import DriftHandler, Topics
from centinela_drift.faust_log import FaustLog
from centinela_drift.references import BundleReferences
from centinela_drift.reporting.report_process import SubprocessReporter
from centinela_drift.service import DriftService
from centinela_drift.settings import DriftSettings
from centinela_drift.state_store import SnapshotStore

_log = structlog.get_logger(__name__)


def run(
    settings: DriftSettings,
    stop: threading.Event,
    *,
    topics: Topics = Topics(),  # noqa: B008
    download: Callable[[str, Path], Path] | None = None,
    clock: Clock | None = None,
) -> int:
    """Run until *stop*; the exit code.

    Args:
        settings: See ``DriftSettings``.
        stop: Ends the run cleanly, with a last snapshot.
        topics: Names of the topics.
        download: Where bundles come from; the registry where None.
        clock: The machine's where None.

    Raises:
        CentinelaError: The process must end, for its supervisor to start it again.
    """
    clock = clock or SystemClock()
    health = Health("kafka")
    root = settings.data_dir / "drift"
    store = SnapshotStore(root / "state")
    try:
        asyncio.run(_run(settings, topics, download or _registry(settings), store, health, clock, stop))
        return 0
    finally:
        store.close()


def _registry(settings: Settings) -> Callable[[str, Path], Path]:
    from centinela.model.registry import Registry  # takes seconds to import

    download: Callable[[str, Path], Path] = Registry(settings).download
    return download


async def _run(
    settings: DriftSettings,
    topics: Topics,
    download: Callable[[str, Path], Path],
    store: SnapshotStore,
    health: Health,
    clock: Clock,
    stop: threading.Event,
) -> None:
    references = BundleReferences(download, settings.data_dir / "drift" / "references")
    handler = DriftHandler(settings, topics)
    reporter = SubprocessReporter(
        settings.data_dir / "reports",
        settings.data_dir / "archive" / "predictions",
        references.manifest_path,
        handler.windows.first_seen,
        settings.drift_evidently_timeout_seconds,
    )
    service = DriftService(settings, handler, store, references, reporter, health, clock)
    service.restore()
    listening = bind(settings.ops_host, settings.drift_port, "CENTINELA_DRIFT_PORT")
    ops = OpsServer(health, listening, [OpsRoute("/drift", service.status)])
    stopping = asyncio.Event()
    watcher = asyncio.create_task(_forward(stop, stopping), name="stop")
    kafka = FaustLog(settings, topics, service, health, clock)
    try:
        await _await_topics(settings, topics, health, stopping)
        if not stopping.is_set():
            await kafka.run(stopping)
    except CentinelaError as error:
        health.died(str(error))
        if kafka.abandoned and not stopping.is_set():
            failed(error)
        raise
    finally:
        watcher.cancel()
        await reporter.close()
        ops.close()
        if kafka.abandoned:  # its threads would keep the process for a minute; everything that matters is on the disk
            os._exit(0 if stopping.is_set() else 1)


async def _await_topics(settings: Settings, topics: Topics, health: Health, stop: asyncio.Event) -> None:
    """Wait until the brokers answer and have every topic that is read or written."""
    kafka = DependencyState("kafka")
    backoff = Backoff(first_s=0.5)
    reported: list[str] = []
    while not stop.is_set():
        try:
            missing = await asyncio.to_thread(_missing, settings, topics)
        except DependencyUnavailable as error:
            kafka.down(str(error))
            health.wait_for("kafka", str(error))
        else:
            kafka.up()
            if not missing:
                return
            health.wait_for("kafka", f"topics are missing: {', '.join(missing)} (centinela topics create)")
            if missing != reported:
                _log.warning("topics.awaited", missing=missing)
                reported = missing
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), backoff.next_s())


def _missing(settings: Settings, topics: Topics) -> list[str]:
    names = [*topics.inputs, *(name + DLQ_SUFFIX for name in topics.inputs), topics.reports, topics.requests]
    admin = topic_admin(settings)
    try:
        present = admin.describe([TopicSpec(name, 1, 1, {}) for name in names])
    finally:
        admin.close()
    return [name for name in names if name not in present]


async def _forward(stop: threading.Event, stopping: asyncio.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(0.1)
    stopping.set()
