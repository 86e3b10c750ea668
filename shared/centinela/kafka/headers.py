"""The headers of a record: CloudEvents attributes and its trace context."""

from __future__ import annotations

from datetime import datetime

from centinela.kafka.port import Headers
from centinela.telemetry.tracing import TRACEPARENT


def event_source(service: str, role: str | None = None) -> str:
    """The CloudEvents source of what *service* writes: ``centinela/<service>[/<role>]``."""
    return f"centinela/{service}/{role}" if role else f"centinela/{service}"


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
    """The first header *name* that has a value, as text, or None. In Kafka a header may have no value."""
    return next((value.decode("utf-8", "replace") for key, value in headers if key == name and value is not None), None)
