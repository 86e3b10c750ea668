"""How every process starts: settings, logs, signals."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

import structlog
from pydantic import ValidationError

from centinela.errors import CentinelaError
from centinela.kafka.access import access
from centinela.model.signing import trusted_keys
from centinela.security.access import require_guarded
from centinela.settings import Settings
from centinela.settings_table import is_secret, variables
from centinela.telemetry.logging import configure_logging

S = TypeVar("S", bound=Settings)
_UMASK = 0o027
"""A service's files contain transactions: only its user and its group may read them."""
END_WITHIN_S = 10.0
"""A process that has failed ends within this time, whatever one of its clients still waits for."""


def load_settings(settings_class: type[S]) -> S:
    """The settings of the environment; an invalid one ends the process with a line that names its variable
    (exit 2)."""
    try:
        return settings_class()
    except ValidationError as error:
        for problem in error.errors():
            name = str(problem["loc"][0]) if problem["loc"] else ""
            field = settings_class.model_fields.get(name)
            variable = variables(name, field)[0] if field else name
            given = f" (it is {problem['input']!r})" if field and not is_secret(field) else ""
            print(f"centinela: {variable}: {problem['msg']}{given}", file=sys.stderr)
        raise SystemExit(2) from error


def start(settings_class: type[S], service: str) -> tuple[S, threading.Event]:
    """Read the settings, configure logging, and return both the settings and an event that SIGTERM and SIGINT set.

    From then on an uncaught exception is logged like everything else, as the last line.

    Raises:
        SystemExit: A setting is invalid, the process would be open to others without API keys, the access to Kafka is
            incomplete, or the keys of models cannot be used (exit 2, one clear line).
    """
    settings = load_settings(settings_class)
    os.umask(_UMASK)
    configure_logging(service, level=settings.log_level, format=settings.log_format)
    try:
        require_guarded(settings)
        access(settings)
        trusted_keys(settings)
    except CentinelaError as error:
        print(f"centinela: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    sys.excepthook = _crashed
    stop = threading.Event()

    def request_stop(number: int, _frame: object) -> None:
        structlog.get_logger().info("process.stop_requested", signal=signal.Signals(number).name)
        stop.set()

    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, request_stop)
    structlog.get_logger().info(
        "process.started", kafka=settings.kafka_bootstrap_servers, mlflow=settings.mlflow_tracking_uri
    )
    return settings, stop


def serve(settings_class: type[S], service: str, run: Callable[[S, threading.Event], int]) -> int:
    """Start, and *run* until SIGTERM or SIGINT. The exit code of *run*, or 1 where it raises a ``CentinelaError``: the
    supervisor must start the process again."""
    settings, stop = start(settings_class, service)
    try:
        return run(settings, stop)
    except CentinelaError as error:
        return failed(error)


def failed(error: CentinelaError | str) -> int:
    """Log why the process ends, as its last line, and make sure that it ends. The exit code, 1."""
    kind = type(error).__name__ if isinstance(error, CentinelaError) else "Died"
    structlog.get_logger().error("process.failed", error=kind, detail=str(error))
    _end_soon()
    return 1


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, CentinelaError):
        failed(error)  # type: ignore[arg-type]
        return
    structlog.get_logger().critical(
        "process.crashed", error=kind.__name__, detail=str(error), exc_info=(kind, error, trace)
    )
    _end_soon()


def _end_soon() -> None:
    """End a process that hangs (a client may wait for a broker): print all stacks and exit with code 1."""
    faulthandler.dump_traceback_later(END_WITHIN_S, exit=True)
