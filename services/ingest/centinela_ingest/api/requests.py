"""HTTP bodies to events [P]. A request that does not hold is refused whole, with the field named."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from centinela.codec import require_plausible_time
from centinela.errors import InvalidRecord
from centinela.events import SUPPORTED_VERSION, LabelReported, TransactionReceived

E = TypeVar("E", TransactionReceived, LabelReported)
EARLIEST_YEAR = 1970
_DEEPEST = 3
_PATH = re.compile(r" - at `\$(?:\[(?P<index>\d+)\])?\.?(?P<field>[^`]*)`$")
_NAMED = re.compile(r"(?:required|unknown) field `(?P<name>[^`]+)`")


class TransactionIn(TransactionReceived, frozen=True, forbid_unknown_fields=True):
    """A transaction as a client may send it: no field beside the event's."""


class LabelIn(LabelReported, frozen=True, forbid_unknown_fields=True):
    """A label as a client may send it."""


class RequestRefused(Exception):
    """A request that cannot be accepted.

    Args:
        status: HTTP status, 4xx.
        error: A constant in snake_case.
        field: The field at fault (``amount``, ``attributes.v3``), None where it is the whole body.
        index: Which of a batch, from 0; None for one object.
    """

    def __init__(
        self, status: int, error: str, detail: str, *, field: str | None = None, index: int | None = None
    ) -> None:
        super().__init__(f"{error}: {detail}")
        self.status, self.error, self.detail, self.field, self.index = status, error, detail, field, index


class Parser(Generic[E]):
    """Reads one object or an array of them."""

    def __init__(self, kind: type[E], max_batch: int) -> None:
        self._one: msgspec.json.Decoder[E] = msgspec.json.Decoder(kind)
        self._many: msgspec.json.Decoder[list[E]] = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
        self._max_batch = max_batch

    def parse(self, body: bytes, now: datetime) -> list[E]:
        """The events of *body*.

        Raises:
            RequestRefused: 400 no JSON, 413 too many, 422 a field does not hold.
        """
        batch = body.lstrip()[:1] == b"["
        try:
            events: list[E] = self._many.decode(body) if batch else [self._one.decode(body)]
        except msgspec.ValidationError as error:
            raise _invalid(str(error), body) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _unreadable(str(error), body) from error
        if len(events) > self._max_batch:
            raise RequestRefused(413, "too_many", f"{len(events)} in one request; at most {self._max_batch}")
        if not events:
            raise RequestRefused(422, "invalid_field", "the array is empty")
        for index, event in enumerate(events):
            _require_sound(event, now, index if batch else None)
        return events


def _require_sound(event: TransactionReceived | LabelReported, now: datetime, index: int | None) -> None:
    if event.version != SUPPORTED_VERSION:
        detail = f"version {event.version}; this release reads version {SUPPORTED_VERSION}"
        raise RequestRefused(422, "unsupported_version", detail, field="version", index=index)
    _require_time("occurred_at", event.occurred_at, now, index)
    if isinstance(event, LabelReported):
        _require_time("reported_at", event.reported_at, now, index)
        if event.reported_at < event.occurred_at:
            raise RequestRefused(422, "invalid_field", "before occurred_at", field="reported_at", index=index)
    elif event.verdict is not None:
        raise RequestRefused(422, "invalid_field", "verdicts are not taken from clients", field="verdict", index=index)


def _require_time(field: str, instant: datetime, now: datetime, index: int | None) -> None:
    if not EARLIEST_YEAR <= instant.year < 9999:
        raise RequestRefused(
            422, "invalid_field", f"the year must lie between {EARLIEST_YEAR} and 9998", field=field, index=index
        )
    try:
        require_plausible_time(instant, now)
    except InvalidRecord as error:
        raise RequestRefused(
            422, error.reason, f"{instant.isoformat()} is more than a day ahead", field=field, index=index
        ) from error


def _invalid(message: str, body: bytes) -> RequestRefused:
    """msgspec's message with its path taken apart. A number out of range has no path: it is looked for."""
    match = _PATH.search(message)
    detail = message[: match.start()] if match else message
    field = match["field"] if match else ""
    index = int(match["index"]) if match and match["index"] else None
    if named := _NAMED.search(detail):
        field = f"{field}.{named['name']}" if field else named["name"]
    if not match and (found := _not_finite(body)):
        return found
    if field.endswith("[...]"):
        field = _named_attribute(body, field, index) or field.removesuffix("[...]")
    return RequestRefused(422, "invalid_field", detail, field=field or None, index=index)


def _unreadable(message: str, body: bytes) -> RequestRefused:
    """NaN and Infinity are no JSON, but the client deserves to know which field has them."""
    return _not_finite(body) or RequestRefused(400, "malformed_json", message)


def _lenient(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _not_finite(body: bytes) -> RequestRefused | None:
    content = _lenient(body)
    for index, item in enumerate(content) if isinstance(content, list) else ((None, content),):
        for path, value in _leaves(item, ()):
            if isinstance(value, float) and not math.isfinite(value):
                return RequestRefused(
                    422, "invalid_field", "not a finite number", field=".".join(path) or None, index=index
                )
    return None


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What stands where a field of an event can stand; deeper down nothing is ours, and naming it would cost more than
    reading it."""
    if len(path) > _DEEPEST:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, (*path, str(number)))
    else:
        yield path, value


def _named_attribute(body: bytes, field: str, index: int | None) -> str | None:
    """msgspec writes ``attributes[...]`` for a value of a mapping; the name of the first that is no number."""
    content, parent = _lenient(body), field.removesuffix("[...]")
    try:
        values = (content[index] if index is not None else content)[parent].items()
    except (
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
    ):  # the field at fault was the first of two of that name, or the rest is no JSON
        return None
    return next((f"{parent}.{name}" for name, value in values if not _is_number(value)), None)


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))


def ids(events: Sequence[TransactionReceived | LabelReported]) -> list[str]:
    """The transaction ids of *events*, in order."""
    return [event.transaction_id for event in events]
