"""Bytes to events: the one decoder of each event type, with errors that name the field, and which times are plausible.

A time that arithmetic cannot hold must not get past this module: ``0001-01-01T00:00:00+23:59`` is a valid date, but has
no UTC form. A decoder therefore refuses every time outside ``EARLIEST`` to ``LATEST``, in every field. Whether an event
time is ahead of the clock is judged by ``time_fault``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Final, Generic, NamedTuple, TypeVar, get_args

import msgspec

from centinela.errors import InvalidRecord
from centinela.events import (
    REFUND_HINT,
    SUPPORTED_VERSION,
    Event,
    FeaturePane,
    LabelReported,
    ModelEvent,
    TransactionReceived,
    TransactionScored,
)
from centinela.times import EPOCH, from_ms, to_ms

E = TypeVar("E", bound=Event)
DECODE_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what they should be; the last for JSON that is nested too deeply. A
``ValidationError`` is a ``DecodeError``."""
MAX_RECORD_BYTES = 1_000_000
FUTURE_TOLERANCE = timedelta(days=1)
EARLIEST: Final = EPOCH
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""The first instant that is refused: what comes before it can be stored in nanoseconds, and days can be added to it."""

EVENT_TIMES: Final[Mapping[type[Event], tuple[str, ...]]] = {
    TransactionReceived: ("occurred_at",),
    LabelReported: ("occurred_at", "reported_at"),
    TransactionScored: ("occurred_at",),
    FeaturePane: ("start", "watermark"),
}
"""The fields that move event time forward, and so must not be ahead of the clock."""


class _TimeField(NamedTuple):
    """A field that is a time: its name, with dots where it is in a struct of the event, and the way to it."""

    name: str
    path: tuple[Callable[[Any], Any], ...]

    def of(self, events: Sequence[Event]) -> Sequence[datetime]:
        """The times that *events* have there."""
        found: Sequence[Any] = events
        for get in self.path:
            found = [value for value in map(get, found) if value is not None]
        return found


class Decoder(Generic[E]):
    """Decodes one event type from UTF-8 JSON.

    Args:
        event_type: The event, or the union of events, that a topic carries.
    """

    def __init__(self, event_type: type[E]) -> None:
        self._one = msgspec.json.Decoder(event_type)
        self._many: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[event_type | int])  # type: ignore[valid-type]
        self._times = {kind: tuple(_time_fields(kind)) for kind in get_args(event_type) or (event_type,)}

    def decode(self, value: bytes | None) -> E:
        """The event of one record.

        Raises:
            InvalidRecord: ``empty``, ``too_large``, ``malformed_json``, ``invalid_field`` (the detail names it),
                ``unsupported_version``, ``time_before_1970`` or ``time_in_future``.
        """
        if not value:
            raise InvalidRecord("empty", "the record has no value")
        if len(value) > MAX_RECORD_BYTES:
            raise InvalidRecord("too_large", f"{len(value)} bytes; at most {MAX_RECORD_BYTES}")
        try:
            event = self._one.decode(value)
        except msgspec.ValidationError as error:
            raise InvalidRecord("invalid_field", _explained(str(error))) from error
        except DECODE_ERRORS as error:
            raise InvalidRecord("malformed_json", str(error)) from error
        if event.version != SUPPORTED_VERSION:
            raise InvalidRecord(
                "unsupported_version", f"version {event.version}; this release reads version {SUPPORTED_VERSION}"
            )
        if (fault := self._first_fault([event])) is not None:
            raise fault
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
                    and self._first_fault(events) is None
                ):
                    return events
        except (*DECODE_ERRORS, ValueError):
            pass
        return [self._try(value) for value in values]

    def _try(self, value: bytes | None) -> E | InvalidRecord:
        try:
            return self.decode(value)
        except InvalidRecord as invalid:
            return invalid

    def _first_fault(self, events: Sequence[E]) -> InvalidRecord | None:
        """What is wrong with the first time that is out of range, field by field."""
        for kind, fields in self._times.items():
            of_kind = events if len(self._times) == 1 else [event for event in events if type(event) is kind]
            for field in fields:
                instants = field.of(of_kind)
                if instants and (min(instants) < EARLIEST or max(instants) >= LATEST):
                    return next(_range_fault(i, field.name) for i in instants if not EARLIEST <= i < LATEST)
        return None


def _explained(message: str) -> str:
    return message + REFUND_HINT if message.endswith(">= 0.0 - at `$.amount`") else message


class ModelEventDecoder(Decoder[Event]):
    """Decodes the union of ``model-events`` by its ``type`` field."""

    def __init__(self) -> None:
        super().__init__(ModelEvent)  # type: ignore[arg-type]


def require_plausible_time(instant: datetime, now: datetime, field: str = "occurred_at") -> None:
    """Refuse an event time further in the future than a clock can be wrong, or before 1970.

    Raises:
        InvalidRecord: ``time_in_future`` or ``time_before_1970``.
    """
    if not EARLIEST <= instant < LATEST:
        raise _range_fault(instant, field)
    if instant - now > FUTURE_TOLERANCE:
        raise InvalidRecord(
            "time_in_future", f"{field} {instant.isoformat()} is more than a day ahead of {_short(now)}"
        )


def time_fault(event: Event, timestamp_ms: int, now: datetime) -> InvalidRecord | None:
    """Why an event time of *event* is not plausible, or None.

    Judged by the record's own time in Kafka where that is not later than *now*: a record that is refused today is also
    refused when it is read again tomorrow.

    Args:
        timestamp_ms: The record's time in Kafka; 0 or less where it has none.
    """
    stamped = 0 < timestamp_ms < to_ms(now)
    reference = from_ms(timestamp_ms) if stamped else now
    for field in _event_times(type(event)):
        instant = getattr(event, field)
        try:
            require_plausible_time(instant, reference, field)
        except InvalidRecord as fault:
            if stamped and instant - now <= FUTURE_TOLERANCE:
                detail = f"{fault.detail}, the record's time stamp in Kafka: producers give it in milliseconds"
                return InvalidRecord(fault.reason, detail)
            return fault
    return None


def _event_times(kind: type[Event]) -> tuple[str, ...]:
    """The event times of *kind*, or of the event that it is a stricter form of."""
    return next(EVENT_TIMES[base] for base in kind.__mro__ if base in EVENT_TIMES)


def _range_fault(instant: datetime, field: str) -> InvalidRecord:
    if instant < EARLIEST:
        return InvalidRecord("time_before_1970", f"{field} {instant.isoformat()} is before 1970")
    return InvalidRecord("time_in_future", f"{field} {instant.isoformat()} is after {LATEST.year - 1}")


def _short(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="seconds")


def _time_fields(kind: type[msgspec.Struct], outer: str = "") -> Iterator[_TimeField]:
    """The fields of *kind* that are times, those of structs in it included."""
    for field in msgspec.structs.fields(kind):
        name = outer + field.name
        for part in _parts(msgspec.inspect.type_info(field.type)):
            if isinstance(part, msgspec.inspect.DateTimeType):
                yield _TimeField(name, tuple(map(attrgetter, name.split("."))))
            elif isinstance(part, msgspec.inspect.StructType):
                yield from _time_fields(part.cls, f"{name}.")


def _parts(info: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    """*info* without its metadata; the members of a union."""
    if isinstance(info, msgspec.inspect.Metadata):
        yield from _parts(info.type)
    elif isinstance(info, msgspec.inspect.UnionType):
        for member in info.types:
            yield from _parts(member)
    else:
        yield info
