"""Correlation from HTTP through Kafka: W3C ``traceparent`` and CloudEvents attributes as record headers."""

from __future__ import annotations

import re
import secrets

_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
TRACEPARENT = "traceparent"


def new_traceparent() -> str:
    """A fresh W3C trace context, sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def traceparent_or_new(value: str | None) -> str:
    """*value* where it is a valid ``traceparent``, else a fresh one."""
    return value if value and _TRACEPARENT.fullmatch(value) else new_traceparent()


def trace_id(traceparent: str) -> str:
    """The 32 hex digits that name the whole trace."""
    return traceparent.split("-")[1]
