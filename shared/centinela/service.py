"""How every process starts: settings, logs, signals."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import structlog
from pydantic import ValidationError

from centinela.errors import CentinelaError
from centinela.security.access import require_guarded
from centinela.settings import Settings
from centinela.settings_table import variables
from centinela.telemetry.logging import configure_logging

S = TypeVar("S", bound=Settings)


def load_settings(settings_class: type[S]) -> S:
    """The settings of the environment; one that does not hold ends the process with a line that names its variable (exit 2)."""
    try:
        return settings_class()
    except ValidationError as error:
        for problem in error.errors():
            name = str(problem["loc"][0]) if problem["loc"] else ""
            field = settings_class.model_fields.get(name)
            variable = variables(name, field)[0] if field else name
            print(f"centinela: {variable}: {problem['msg']} (it is {problem['input']!r})", file=sys.stderr)
        raise SystemExit(2) from error


def start(settings_class: type[S], service: str) -> tuple[S, threading.Event]:
    """Read the settings, configure logging, and return both the settings and an event that SIGTERM and SIGINT set.

    Raises:
        SystemExit: A setting does not hold, or the process would be open to others without API keys (exit 2, one clear line).
    """
    settings = load_settings(settings_class)
    configure_logging(settings, service)
    try:
        require_guarded(settings)
    except CentinelaError as error:
        print(f"centinela: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    stop = threading.Event()

    def request_stop(number: int, _frame: object) -> None:
        structlog.get_logger().info("process.stop_requested", signal=signal.Signals(number).name)
        stop.set()

    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, request_stop)
    structlog.get_logger().info("process.started", kafka=settings.kafka_bootstrap_servers, mlflow=settings.mlflow_tracking_uri)
    return settings, stop


def serve(settings_class: type[S], service: str, run: Callable[[S, threading.Event], None]) -> None:
    """Start, and *run* until SIGTERM or SIGINT; exit 1 where *run* raises an error of ours: the process must be started anew."""
    settings, stop = start(settings_class, service)
    try:
        run(settings, stop)
    except CentinelaError as error:
        structlog.get_logger().error("process.failed", error=str(error))
        raise SystemExit(1) from error
