"""From msgspec's errors to refusals that name the invalid field.

A body is decoded once. Only on the way to a refusal a second, lenient reader looks for what msgspec does not name: the
key of a mapping (``attributes[...]``) and the field that holds ``NaN``, an infinity or a number out of range.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from centinela.codec import DECODE_ERRORS as DECODE_ERRORS
from centinela.events import REFUND_HINT
from centinela.web.refusals import RequestRefused

_DEEPEST = 4
"""No field of an event is deeper in a body: naming what is deeper would cost more than decoding it."""
_NAMELESS = "[...]"
_OUT_OF_RANGE = "out of range"
_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_NAMED = re.compile(r"(?:required|unknown) field `(?P<name>[^`]+)`")


def refusal(error: Exception, body: bytes) -> RequestRefused:
    """The refusal of *body*, which msgspec could not decode: 422 where a field is invalid, 400 where it is not JSON."""
    if isinstance(error, msgspec.ValidationError):
        path, detail = _split(str(error))
        if path and not (detail.endswith(_OUT_OF_RANGE) and _NAMELESS in path):
            return _invalid(_named(path, lambda: _lenient(body)), detail)
    else:
        path, detail = "", ""
    if field := _first(_lenient(body), "", _is_out_of_range):
        return _invalid(field, "not a finite number")
    if detail:
        return _invalid(path.partition(_NAMELESS)[0], detail)
    return RequestRefused(400, "malformed_json", str(error))


def conversion_refusal(error: msgspec.ValidationError, content: Any) -> RequestRefused:
    """The refusal of *content*, decoded JSON that cannot be converted to a struct."""
    path, detail = _split(str(error))
    return _invalid(_named(path, lambda: content), detail)


def _invalid(field: str, detail: str) -> RequestRefused:
    if field.rpartition(".")[2] == "amount" and detail.endswith(">= 0.0"):
        detail += REFUND_HINT
    return RequestRefused(422, "invalid_field", detail, field=field or None)


def _split(message: str) -> tuple[str, str]:
    """Path and detail of a message of msgspec."""
    match = _PATH.search(message)
    path, detail = (match["path"], message[: match.start()]) if match else ("", message)
    if named := _NAMED.search(detail):
        path = f"{path}.{named['name']}" if path else named["name"]
    return path, detail


def _named(path: str, content: Callable[[], Any]) -> str:
    """*path* with the key of the first value that is not a number, where msgspec does not name it."""
    if not path.endswith(_NAMELESS):
        return path
    parent = path.removesuffix(_NAMELESS)
    return _first(content(), f"{parent}.", _is_not_a_number) or parent


def _lenient(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _first(content: Any, prefix: str, is_bad: Callable[[Any], bool]) -> str | None:
    """The first path that starts with *prefix* and has a value that *is_bad*."""
    return next((path for path, value in _walk(content, "") if path.startswith(prefix) and is_bad(value)), None)


def _is_out_of_range(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return not math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return True


def _is_not_a_number(value: Any) -> bool:
    if value is None:
        return False
    return isinstance(value, bool) or not isinstance(value, int | float) or _is_out_of_range(value)


def _walk(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every value with its path, as deep as a field of an event can be."""
    yield path, value
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _walk(inner, f"{path}[{number}]", depth + 1)
