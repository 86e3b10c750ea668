"""The child process that answers one request."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import threading
from pathlib import Path

import structlog

from centinela.codec import Decoder
from centinela.errors import CentinelaError, DependencyUnavailable
from centinela.events import RetrainRequested, encode
from centinela.files import write_atomically
from centinela.process.start import load_settings
from centinela.telemetry.logging import configure_logging
from centinela_trainer.archive.bootstrap import await_archive
from centinela_trainer.retraining.bootstrap import TRAINER, training_job
from centinela_trainer.retraining.child_runner import EX_TEMPFAIL
from centinela_trainer.settings import TrainerSettings

_log = structlog.get_logger(__name__)


def answer_request(request_path: Path, answer_path: Path, *, guarded: bool) -> int:
    """Train for the request in *request_path*, and write the answer to *answer_path*.

    Args:
        guarded: End when standard input ends: the parent holds its other end.

    Returns:
        The exit code; where it is not 0, the last line of standard output says why.
    """
    settings = load_settings(TrainerSettings)
    configure_logging(TRAINER, level=settings.log_level, format=settings.log_format)
    if guarded:
        threading.Thread(target=_end_with_parent, name="guard", daemon=True).start()
    threading.Thread(
        target=importlib.import_module, args=("centinela_trainer.retraining.job",), name="imports", daemon=True
    ).start()
    try:
        request = Decoder(RetrainRequested).decode(request_path.read_bytes())
        await_archive(settings)
        with tempfile.TemporaryDirectory(prefix="centinela-training-") as work:
            completed = training_job(settings, Path(work)).run(request)
    except DependencyUnavailable as error:
        print(error)
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
    """The parent holds the other end of standard input: when a read returns nothing, the parent is gone."""
    while os.read(sys.stdin.fileno(), 1024):
        continue
    _log.warning("training.orphaned")
    os._exit(1)
