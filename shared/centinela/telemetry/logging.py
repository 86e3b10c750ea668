"""Structured logs: JSON lines with the keys ``timestamp level message module function``, pretty on a terminal."""

from __future__ import annotations

import hashlib
import hmac
import logging
import sys

import structlog
from structlog.processors import CallsiteParameter, CallsiteParameterAdder
from structlog.typing import Processor

_NAMES = {CallsiteParameter.FUNC_NAME.value: "function"}


def _rename_callsite(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for old, new in _NAMES.items():
        if old in event:
            event[new] = event.pop(old)
    return event


def configure_logging(service: str, *, level: str = "INFO", format: str = "auto") -> None:
    """Send structlog and the standard library's logging to standard error in one form. Call once, first.

    Args:
        service: Bound to every line.
        level: Lowest level that is logged.
        format: ``json``, ``console``, or ``auto``: console on a terminal, JSON elsewhere.
    """
    pretty = format == "console" or (format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        CallsiteParameterAdder([CallsiteParameter.MODULE, CallsiteParameter.FUNC_NAME]),
        _rename_callsite,
        structlog.processors.format_exc_info,
    ]
    final: list[Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if pretty
        else [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for client in ("kafka", "centinela.librdkafka"):
        # DependencyState logs an outage once.
        logging.getLogger(client).setLevel("WARNING" if level == "DEBUG" else "CRITICAL")
    for noisy in ("aiokafka", "urllib3", "httpx", "matplotlib", "alembic"):
        logging.getLogger(noisy).setLevel("WARNING")
    structlog.contextvars.bind_contextvars(service=service)


def hashed_user(user_id: str | None, salt: str) -> str | None:
    """The form in which a user may appear in logs: 16 hex digits of a keyed SHA-256."""
    if user_id is None:
        return None
    return hmac.new(salt.encode(), user_id.encode(), hashlib.sha256).hexdigest()[:16]
