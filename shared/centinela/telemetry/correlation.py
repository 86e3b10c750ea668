"""Correlation from HTTP through Kafka: W3C ``traceparent`` and CloudEvents attributes as record headers."""

from __future__ import annotations

import re
import secrets
from datetime import datetime

from centinela.kafka.port import Headers

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


def event_headers(
    *, event_type: str, event_id: str, source: str, time: datetime, traceparent: str | None = None
) -> Headers:
    """CloudEvents 1.0 attributes in Kafka's binary binding, with the trace context where there is one."""
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_type", event_type.encode()),
        ("ce_id", event_id.encode()),
        ("ce_source", source.encode()),
        ("ce_time", time.isoformat().encode()),
        ("content-type", b"application/json"),
    )
    return (*headers, (TRACEPARENT, traceparent.encode())) if traceparent else headers


def header(headers: Headers, name: str) -> str | None:
    """The first header *name* that has a value, as text, or None. Kafka lets a header have none."""
    return next((value.decode("utf-8", "replace") for key, value in headers if key == name and value is not None), None)
