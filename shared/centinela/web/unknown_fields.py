"""Requests with fields that mean nothing here: refused by name, or reported in the answer."""

from __future__ import annotations

from collections.abc import Collection

from centinela.features.known_fields import KnownFields
from centinela.telemetry.metrics import UNKNOWN_FIELDS
from centinela.web.refusals import RequestRefused


def unknown_field(
    known: KnownFields, name: str, fields: Collection[str], *, path: str, index: int | None = None
) -> RequestRefused:
    """The refusal of the field *name* at *path*; *fields* are those of the object that it is in."""
    return RequestRefused(422, "unknown_field", known.explain(name, fields), field=path, index=index)


def count_unknown(service: str, fields: Collection[str]) -> None:
    """Count *fields* that were accepted although they mean nothing."""
    if fields:
        UNKNOWN_FIELDS.labels(service).inc(len(fields))
