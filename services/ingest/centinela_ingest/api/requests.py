"""HTTP bodies to events. An invalid request is refused as a whole, and the refusal names the field."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Generic, TypeVar

import msgspec

from centinela.codec import require_plausible_time
from centinela.errors import InvalidRecord
from centinela.events import SUPPORTED_VERSION, LabelReported, TransactionReceived
from centinela.web.json_errors import DECODE_ERRORS, refusal
from centinela.web.refusals import RequestRefused

E = TypeVar("E", TransactionReceived, LabelReported)
EARLIEST_YEAR = 1970
_ITEM = re.compile(r"\[(?P<index>\d+)\]\.?(?P<field>.*)", re.DOTALL)


class TransactionIn(TransactionReceived, frozen=True, forbid_unknown_fields=True):
    """A transaction as a client may send it: no fields other than the event's."""


class LabelIn(LabelReported, frozen=True, forbid_unknown_fields=True):
    """A label as a client may send it."""


class AcceptedAnswer(msgspec.Struct, frozen=True):
    """What was accepted: the ids in the order of the request."""

    accepted: int
    transaction_ids: list[str]


class Parser(Generic[E]):
    """Reads one object or an array of them."""

    def __init__(self, kind: type[E], max_batch: int) -> None:
        self._one: msgspec.json.Decoder[E] = msgspec.json.Decoder(kind)
        self._many: msgspec.json.Decoder[list[E]] = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
        self._max_batch = max_batch

    def parse(self, body: bytes, now: datetime) -> list[E]:
        """The events of *body*.

        Raises:
            RequestRefused: 400 not JSON, 413 too many items, 422 an invalid field.
        """
        batch = body.lstrip()[:1] == b"["
        try:
            events: list[E] = self._many.decode(body) if batch else [self._one.decode(body)]
        except DECODE_ERRORS as error:
            raise _with_index(refusal(error, body)) from error
        if len(events) > self._max_batch:
            raise RequestRefused(413, "too_many", f"{len(events)} in one request; at most {self._max_batch}")
        if not events:
            raise RequestRefused(422, "invalid_field", "the array is empty")
        for index, event in enumerate(events):
            _require_valid(event, now, index if batch else None)
        return events


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


def _with_index(refused: RequestRefused) -> RequestRefused:
    """*refused* with the item of a batch as its ``index`` instead of in the path."""
    if refused.field is None or not (item := _ITEM.fullmatch(refused.field)):
        return refused
    field, index = item["field"] or None, int(item["index"])
    return RequestRefused(refused.status, refused.error, refused.detail, field=field, index=index)


def ids(events: Sequence[TransactionReceived | LabelReported]) -> list[str]:
    """The transaction ids of *events*, in order."""
    return [event.transaction_id for event in events]
