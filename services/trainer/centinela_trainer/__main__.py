"""``python -m centinela_trainer serve | archive | train``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import structlog
from prometheus_client import REGISTRY

from centinela.codec import Decoder
from centinela.consuming.outage import Outage
from centinela.errors import CentinelaError, DependencyUnavailable
from centinela.events import RetrainRequested, encode
from centinela.files import write_atomically
from centinela.liveness.health import Health
from centinela.process.start import load_settings, start
from centinela.telemetry.logging import configure_logging
from centinela.web.ops import OpsServer
from centinela.web.server import bind
from centinela_trainer import bootstrap
from centinela_trainer.archive.store import ArchiveStore
from centinela_trainer.retraining.child_process import EX_TEMPFAIL
from centinela_trainer.settings import TrainerSettings
from centinela_trainer.skew.metrics import SkewCollector

_log = structlog.get_logger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the role that *arguments* name; returns the exit code."""
    parser = argparse.ArgumentParser(prog="centinela_trainer", description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    roles.add_parser("serve", help="answer retrain requests")
    roles.add_parser("archive", help="write verdicts and labels to Parquet")
    train = roles.add_parser("train", help="answer one request")
    train.add_argument("--request", type=Path, required=True, help="file with a RetrainRequested event as JSON")
    train.add_argument("--answer", type=Path, required=True, help="where the TrainingCompleted event goes")
    train.add_argument("--guarded", action="store_true", help="end when standard input ends")
    chosen = parser.parse_args(arguments)
    if chosen.role == "train":
        return _train(chosen.request, chosen.answer, chosen.guarded)
    return _serve() if chosen.role == "serve" else _archive()


def _serve() -> int:
    settings, stop = start(TrainerSettings, bootstrap.TRAINER)
    health = Health("kafka")
    REGISTRY.register(SkewCollector(settings.skew_path))
    pusher = bootstrap.snapshot_pusher(settings)
    ops = OpsServer(health, bind(settings.ops_host, settings.trainer_port, "CENTINELA_TRAINER_PORT"))
    try:
        if pusher is not None:
            pusher.start()
        bootstrap.trainer_loop(settings, health, stop, answered=pusher.wake if pusher is not None else None).run()
    finally:
        ops.close()
        if pusher is not None:
            pusher.close()
    return 0


def _archive() -> int:
    settings, stop = start(TrainerSettings, bootstrap.ARCHIVE)
    health = Health("kafka")
    ops = OpsServer(health, bind(settings.ops_host, settings.archive_port, "CENTINELA_ARCHIVE_PORT"))
    try:
        store = ArchiveStore(settings.archive_dir)
        if _locked(store, health, stop):
            bootstrap.archive_loop(settings, store, health, stop).run()
    finally:
        ops.close()
    return 0


def _locked(store: ArchiveStore, health: Health, stop: threading.Event) -> bool:
    """Wait until *store* is ours; False where the process shall end first."""
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


def _train(request_path: Path, answer_path: Path, guarded: bool) -> int:
    settings = load_settings(TrainerSettings)
    configure_logging(bootstrap.TRAINER, level=settings.log_level, format=settings.log_format)
    if guarded:
        threading.Thread(target=_end_with_parent, name="guard", daemon=True).start()
    threading.Thread(
        target=importlib.import_module, args=("centinela_trainer.retraining.job",), name="imports", daemon=True
    ).start()
    try:
        request = Decoder(RetrainRequested).decode(request_path.read_bytes())
        bootstrap.await_archive(settings)
        with tempfile.TemporaryDirectory(prefix="centinela-training-") as work:
            completed = bootstrap.training_job(settings, Path(work)).run(request)
    except DependencyUnavailable as away:
        print(away)
        return EX_TEMPFAIL
    except CentinelaError as error:
        _log.exception("training.failed")
        print(error)
        return 1
    except Exception as error:
        _log.exception("training.crashed")
        print(f"{type(error).__name__}: {error}")
        return 1
    write_atomically(answer_path, lambda file: file.write(encode(completed)))
    return 0


def _end_with_parent() -> None:
    """The parent holds the other end of standard input: when it reads empty, the parent is gone."""
    while os.read(sys.stdin.fileno(), 1024):
        continue
    _log.warning("training.orphaned")
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
