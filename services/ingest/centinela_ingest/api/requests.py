"""HTTP bodies to events. An invalid request is refused as a whole, and the refusal names the field."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from centinela.codec import require_plausible_time
from centinela.errors import InvalidRecord
from centinela.events import DEFAULT_CURRENCY, SUPPORTED_VERSION, LabelReported, TransactionReceived
from centinela.features.currency import BASE_ONLY, Rates
from centinela.features.known_fields import KnownFields, unknown_name
from centinela.times import to_ms
from centinela.web.json_errors import DECODE_ERRORS, refusal
from centinela.web.refusals import RequestRefused
from centinela.web.unknown_fields import unknown_field

E = TypeVar("E", TransactionReceived, LabelReported)
_ITEM = re.compile(r"\[(?P<index>\d+)\]\.?(?P<field>.*)", re.DOTALL)


class TransactionIn(TransactionReceived, frozen=True, forbid_unknown_fields=True):
    """A transaction as a client may send it: no fields other than the event's."""


class LabelIn(LabelReported, frozen=True, forbid_unknown_fields=True):
    """A label as a client may send it."""


class AcceptedAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was accepted: the ids in the order of the request. ``unknown_fields``: fields that mean nothing here, where
    such are not refused."""

    accepted: int
    transaction_ids: list[str]
    unknown_fields: tuple[str, ...] = ()


class Parsed(NamedTuple, Generic[E]):
    """The events of a body, and the paths of its fields that mean nothing here."""

    events: list[E]
    unknown: tuple[str, ...]


class Parser(Generic[E]):
    """Reads one object or an array of them.

    Args:
        strict: The event as a client may send it.
        plain: The same event, with any further fields.
        known: The attributes that a transaction may have.
        rates: The base currency, which a transaction has that names none, and the rates of others.
    """

    def __init__(
        self, strict: type[E], plain: type[E], max_batch: int, known: KnownFields, rates: Rates = BASE_ONLY
    ) -> None:
        self._strict: _Decoders[E] = _Decoders.of(strict)
        self._plain: _Decoders[E] = _Decoders.of(plain)
        self._fields = frozenset(plain.__struct_fields__) - {"version", "verdict"}
        self._max_batch = max_batch
        self._known = known
        self._rates = rates

    def parse(self, body: bytes, now: datetime) -> Parsed[E]:
        """The events of *body*.

        Raises:
            RequestRefused: 400 not JSON, 413 too many items, 422 an invalid field.
        """
        batch = body.lstrip()[:1] == b"["
        events, unknown = self._decoded(body, batch)
        if len(events) > self._max_batch:
            raise RequestRefused(413, "too_many", f"{len(events)} in one request; at most {self._max_batch}")
        if not events:
            raise RequestRefused(422, "invalid_field", "the array is empty")
        events = self._in_base_currency(events, body, batch)
        for index, event in enumerate(events):
            at = index if batch else None
            _require_valid(event, now, at)
            if isinstance(event, TransactionReceived):
                unknown += self._unknown_attributes(event, at)
                if missing := self._rates.missing(event.currency, to_ms(event.occurred_at)):
                    raise RequestRefused(422, "no_rate", missing, field="currency", index=at)
        return Parsed(events, tuple(unknown))

    def _decoded(self, body: bytes, batch: bool) -> tuple[list[E], list[str]]:
        """The events, and the paths of their unknown fields where such are only reported."""
        try:
            return self._strict.decode(body, batch), []
        except DECODE_ERRORS as error:
            refused = _with_index(refusal(error, body))
            name = unknown_name(str(error))
            if name is None:
                raise refused from error
            if self._known.refuse:
                raise unknown_field(
                    self._known, name, self._fields, path=refused.field or name, index=refused.index
                ) from error
        try:
            events = self._plain.decode(body, batch)
        except DECODE_ERRORS as error:
            raise _with_index(refusal(error, body)) from error
        return events, self._unknown_of(msgspec.json.decode(body), batch)

    def _in_base_currency(self, events: list[E], body: bytes, batch: bool) -> list[E]:
        """*events* of *body*, those that name no currency in the base currency."""
        if self._rates.base == DEFAULT_CURRENCY or "currency" not in self._fields:
            return events
        content = msgspec.json.decode(body)
        return [
            event if "currency" in item else msgspec.structs.replace(event, currency=self._rates.base)
            for event, item in zip(events, content if batch else [content], strict=True)
        ]

    def _unknown_of(self, content: Any, batch: bool) -> list[str]:
        known = {*self._fields, "version", "verdict"}
        return [
            _path(name, index if batch else None)
            for index, item in enumerate(content if batch else [content])
            for name in item
            if name not in known
        ]

    def _unknown_attributes(self, event: TransactionReceived, index: int | None) -> list[str]:
        unknown = self._known.unknown(event.attributes)
        if unknown and self._known.refuse:
            raise unknown_field(self._known, unknown[0], (), path=f"attributes.{unknown[0]}", index=index)
        return [_path(f"attributes.{name}", index) for name in unknown]


class _Decoders(NamedTuple, Generic[E]):
    """Of one event, and of an array of them."""

    one: msgspec.json.Decoder[E]
    many: msgspec.json.Decoder[list[E]]

    @classmethod
    def of(cls, kind: type[E]) -> _Decoders[E]:
        return cls(msgspec.json.Decoder(kind), msgspec.json.Decoder(list[kind]))  # type: ignore[valid-type]

    def decode(self, body: bytes, batch: bool) -> list[E]:
        return self.many.decode(body) if batch else [self.one.decode(body)]


def _path(name: str, index: int | None) -> str:
    return name if index is None else f"[{index}].{name}"


def _require_valid(event: TransactionReceived | LabelReported, now: datetime, index: int | None) -> None:
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
    try:
        require_plausible_time(instant, now, field)
    except InvalidRecord as error:
        raise RequestRefused(422, error.reason, error.detail, field=field, index=index) from error


def _with_index(refused: RequestRefused) -> RequestRefused:
    """*refused* with the item of a batch as its ``index`` instead of in the path."""
    if refused.field is None or not (item := _ITEM.fullmatch(refused.field)):
        return refused
    field, index = item["field"] or None, int(item["index"])
    return RequestRefused(refused.status, refused.error, refused.detail, field=field, index=index)


def ids(events: Sequence[TransactionReceived | LabelReported]) -> list[str]:
    """The transaction ids of *events*, in order."""
    return [event.transaction_id for event in events]
