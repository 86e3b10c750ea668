"""Bytes to events and back: the one decoder of each event type, with errors that name the field."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

import msgspec

from centinela.errors import InvalidRecord
from centinela.events import REFUND_HINT, SUPPORTED_VERSION, Event, ModelEvent
from centinela.times import EPOCH

E = TypeVar("E", bound=Event)
MAX_RECORD_BYTES = 1_000_000
FUTURE_TOLERANCE = timedelta(days=1)


class Decoder(Generic[E]):
    """Decodes one event type from UTF-8 JSON.

    Args:
        event_type: The event, or the union of events, that a topic carries.
    """

    def __init__(self, event_type: type[E]) -> None:
        self._one = msgspec.json.Decoder(event_type)
        self._many: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[event_type | int])  # type: ignore[valid-type]

    def decode(self, value: bytes | None) -> E:
        """The event of one record.

        Raises:
            InvalidRecord: ``empty``, ``too_large``, ``malformed_json``, ``invalid_field`` (the detail names it) or
                ``unsupported_version``.
        """
        if not value:
            raise InvalidRecord("empty", "the record has no value")
        if len(value) > MAX_RECORD_BYTES:
            raise InvalidRecord("too_large", f"{len(value)} bytes; at most {MAX_RECORD_BYTES}")
        try:
            event = self._one.decode(value)
        except msgspec.ValidationError as error:
            raise InvalidRecord("invalid_field", _explained(str(error))) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRecord("malformed_json", str(error)) from error
        if event.version != SUPPORTED_VERSION:
            raise InvalidRecord(
                "unsupported_version", f"version {event.version}; this release reads version {SUPPORTED_VERSION}"
            )
        return event

    def decode_many(self, values: Sequence[bytes | None]) -> list[E | InvalidRecord]:
        """One result per value, in order: the event, or why it is not one. Fast if all are valid.

        All values are decoded as one array, with a secret number between any two. Every value is exactly one event only
        if that number is between any two events: half an event, or a value of two events, cannot know it.
        """
        try:
            if all(values) and max(map(len, values)) <= MAX_RECORD_BYTES:  # type: ignore[arg-type]
                secret = secrets.randbits(62)
                decoded = self._many.decode(b"[" + (b",%d," % secret).join(values) + b"]")  # type: ignore[arg-type]
                events = decoded[::2]
                if (
                    len(events) == len(values)
                    and decoded[1::2] == [secret] * (len(values) - 1)
                    and all(type(e) is not int and e.version == SUPPORTED_VERSION for e in events)
                ):
                    return events
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            pass
        return [self._try(value) for value in values]

    def _try(self, value: bytes | None) -> E | InvalidRecord:
        try:
            return self.decode(value)
        except InvalidRecord as invalid:
            return invalid


def _explained(message: str) -> str:
    return message + REFUND_HINT if message.endswith(">= 0.0 - at `$.amount`") else message


class ModelEventDecoder(Decoder[Event]):
    """Decodes the union of ``model-events`` by its ``type`` field."""

    def __init__(self) -> None:
        super().__init__(ModelEvent)  # type: ignore[arg-type]


def require_plausible_time(occurred_at: datetime, now: datetime) -> None:
    """Refuse an event time further in the future than a clock can be wrong, or before 1970.

    Raises:
        InvalidRecord: ``time_in_future`` or ``time_before_1970``.
    """
    if occurred_at < EPOCH:
        raise InvalidRecord("time_before_1970", f"occurred_at {occurred_at.isoformat()} is before 1970")
    if occurred_at - now > FUTURE_TOLERANCE:
        raise InvalidRecord("time_in_future", f"occurred_at {occurred_at.isoformat()} is more than a day ahead")
