"""What people may see of a record: as in the logs, no card data, and users only as keyed hashes.

It lists what is allowed rather than what is forbidden: only the fields below are shown as they are.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from centinela.codec import DECODE_ERRORS
from centinela.kafka.port import Headers
from centinela.telemetry.logging import hashed_user

SHOWN = frozenset(
    {
        "version",
        "type",
        "transaction_id",
        "terminal_id",
        "occurred_at",
        "reported_at",
        "scored_at",
        "observed_at",
        "amount",
        "currency",
        "kind",
        "feature_currency",
        "is_fraud",
        "decision",
        "variant",
        "origin",
        "score",
        "threshold",
        "model_name",
        "model_version",
        "alias",
        "sequence",
        "request_id",
        "partition",
        "start",
        "end",
        "count",
        "alerts",
        "watermark",
        "verdict",
        "reasons",
        "feature_set",
        "reason",
        "role",
        "at",
        "values",
    }
)
USERS = frozenset({"user_id"})
SHOWN_HEADERS = ("dlq.", "redrive.", "ce_", "traceparent", "content-type")
SHAPE_CHARACTERS = 400

_DIGITS = re.compile(r"\d(?:[ -]?\d){11,18}")
_LETTER, _DIGIT = re.compile(r"[^\W\d_]"), re.compile(r"\d")


def masked_value(value: bytes | None, salt: str) -> Any:
    """A record's value for people: JSON with what may be seen, or the shape of what is not a JSON object."""
    if value is None:
        return None
    try:
        decoded = msgspec.json.decode(value)
    except DECODE_ERRORS:
        return {"undecodable": shape(value), "bytes": len(value)}
    return _masked_fields(decoded, salt) if isinstance(decoded, dict) else _kind(decoded)


def masked_headers(headers: Headers) -> dict[str, str]:
    """Headers for people: Centinela's and the standard ones without card numbers, of others only the size."""
    return {
        name: masked_text((value or b"").decode(errors="replace"))
        if name.startswith(SHOWN_HEADERS)
        else f"({len(value or b'')} bytes)"
        for name, value in headers
    }


def masked_key(key: bytes | None, salt: str) -> str | None:
    """A record's key, which usually is a user id, as a keyed hash."""
    return None if key is None else hashed_user(key.decode(errors="replace"), salt)


def masked_text(text: str) -> str:
    """*text* without what may be a card number: 12 to 19 digits whose check digit is right, or that are broken up."""
    return _DIGITS.sub(
        lambda found: (
            f"({len(found[0])} digits)" if " " in found[0] or "-" in found[0] or _luhn(found[0]) else found[0]
        ),
        text,
    )


def shape(value: bytes) -> str:
    """The beginning of *value* with each letter as ``a`` and each digit as ``9``: where it breaks, not what it says."""
    text = value[:SHAPE_CHARACTERS].decode(errors="replace")
    return _DIGIT.sub("9", _LETTER.sub("a", text))


def _masked_fields(fields: dict[str, Any], salt: str) -> dict[str, Any]:
    masked: dict[str, Any] = {}
    for name, value in fields.items():
        if name in USERS:
            masked[name] = hashed_user(value, salt) if isinstance(value, str) else _kind(value)
        elif name not in SHOWN:
            masked[masked_text(name)] = _kind(value)
        elif isinstance(value, dict):
            masked[name] = _masked_fields(value, salt)
        elif isinstance(value, list):
            masked[name] = [masked_text(item) if isinstance(item, str) else _kind(item) for item in value]
        else:
            masked[name] = masked_text(value) if isinstance(value, str) else value
    return masked


def _kind(value: Any) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "(boolean)"
        case int() | float():
            return "(number)"
        case str():
            return f"(text, {len(value)} characters)"
        case list():
            return f"(array, {len(value)} items)"
        case _:
            return f"(object, {len(value)} fields)"


def _luhn(digits: str) -> bool:
    doubled = [int(d) * (1 + n % 2) for n, d in enumerate(reversed(digits))]
    return sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0
