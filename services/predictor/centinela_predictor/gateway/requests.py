"""HTTP bodies to transactions, with refusals that name the field."""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from centinela.codec import require_plausible_time
from centinela.errors import InvalidRecord
from centinela.events import DEFAULT_CURRENCY, Currency, Id, Instant, Kind, Money
from centinela.features.currency import BASE_ONLY, Rates
from centinela.features.known_fields import KnownFields
from centinela.times import to_ms
from centinela.web.json_errors import DECODE_ERRORS, conversion_refusal, refusal
from centinela.web.refusals import RequestRefused
from centinela.web.unknown_fields import unknown_field

BATCH_LIMIT = 1_000
BODY_LIMIT = 1_000_000


class PredictRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction to decide on. Further numeric fields become ``attributes``."""

    amount: Money
    transaction_id: Id | None = None
    user_id: Id | None = None
    terminal_id: Id | None = None
    occurred_at: Instant | None = None
    currency: Currency = DEFAULT_CURRENCY
    attributes: dict[str, float | None] = {}
    kind: Kind = "purchase"


class PredictBatch(msgspec.Struct, frozen=True):
    """Transactions to decide on together."""

    transactions: list[PredictRequest]


class Parsed(NamedTuple):
    """A transaction, and the fields of its body that mean nothing here."""

    request: PredictRequest
    unknown: tuple[str, ...]


_FIELDS = frozenset(PredictRequest.__struct_fields__)
_BATCH_FIELDS = frozenset(PredictBatch.__struct_fields__)
_one = msgspec.json.Decoder(PredictRequest)
_many = msgspec.json.Decoder(list[PredictRequest] | PredictBatch)


class RequestParser:
    """Reads bodies.

    Args:
        known: The attributes that a transaction may have.
        rates: The base currency, which a transaction has that names none, and the rates of others.
    """

    def __init__(self, known: KnownFields, rates: Rates = BASE_ONLY) -> None:
        self._known = known
        self._rates = rates

    def one(self, body: bytes, now: datetime) -> list[Parsed]:
        """The transaction of ``POST /predict``.

        Raises:
            RequestRefused: 400 for malformed JSON, 422 for an invalid field, 413 for a body over the limit.
        """
        content = _decoded(body, _one)
        return [self._completed(_converted(content, _one.type), content, now, "")]

    def many(self, body: bytes, now: datetime) -> list[Parsed]:
        """The transactions of ``POST /predict/batch``: a JSON array, or an object with the array ``transactions``.

        Raises:
            RequestRefused: As ``one``; also 422 where there are more than ``BATCH_LIMIT``.
        """
        content = _decoded(body, _many)
        batch = _converted(content, _many.type)
        if isinstance(batch, PredictBatch):
            requests, rows, prefix = batch.transactions, content["transactions"], "transactions"
            for name in content:
                if name not in _BATCH_FIELDS:
                    raise unknown_field(self._known, name, _BATCH_FIELDS, path=name)
        else:
            requests, rows, prefix = batch, content, ""
        if len(requests) > BATCH_LIMIT:
            detail = f"{len(requests)} transactions; at most {BATCH_LIMIT}"
            raise RequestRefused(422, "too_many", detail, field="transactions")
        return [
            self._completed(request, row, now, f"{prefix}[{n}].")
            for n, (request, row) in enumerate(zip(requests, rows, strict=True))
        ]

    def _completed(self, request: PredictRequest, content: dict[str, Any], now: datetime, prefix: str) -> Parsed:
        """*request* with the further fields of *content* as attributes, its time and its currency checked."""
        if request.occurred_at is not None:
            _check_time(request.occurred_at, now, prefix)
        if "currency" not in content and request.currency != self._rates.base:
            request = msgspec.structs.replace(request, currency=self._rates.base)
        if missing := self._rates.missing(request.currency, to_ms(request.occurred_at or now)):
            raise RequestRefused(422, "no_rate", missing, field=f"{prefix}currency")
        further = [name for name in content if name not in _FIELDS]
        unknown = self._unknown(further, prefix, _FIELDS) + self._unknown(
            request.attributes, f"{prefix}attributes.", ()
        )
        more: dict[str, float | None] = {}
        for name in further:
            if name in request.attributes:
                raise _invalid(prefix + name, "given twice: here and in attributes")
            more[name] = _number(content[name], prefix + name)
        if more:
            request = msgspec.structs.replace(request, attributes=request.attributes | more)
        return Parsed(request, unknown)

    def _unknown(self, names: Collection[str], prefix: str, fields: Collection[str]) -> tuple[str, ...]:
        """The paths of those of *names* that mean nothing here."""
        unknown = self._known.unknown(names)
        if unknown and self._known.refuse:
            raise unknown_field(self._known, unknown[0], fields, path=prefix + unknown[0])
        return tuple(prefix + name for name in unknown)


def _decoded(body: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    """*body* as plain values. *decoder* only explains a body that cannot be decoded: a field that is invalid before the
    place where the JSON is malformed is named."""
    if len(body) > BODY_LIMIT:
        raise RequestRefused(413, "too_large", f"the body is larger than the {BODY_LIMIT} bytes allowed")
    try:
        return msgspec.json.decode(body)
    except DECODE_ERRORS as error:
        try:
            decoder.decode(body)
        except msgspec.ValidationError as invalid:
            raise refusal(invalid, body) from invalid
        except DECODE_ERRORS:
            pass
        raise refusal(error, body) from error


def _converted(content: Any, kind: Any) -> Any:
    """*content* as *kind*: the fields that *kind* does not name stay in *content* only, so the body is decoded once."""
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise conversion_refusal(error, content) from error


def _check_time(occurred_at: datetime, now: datetime, prefix: str) -> None:
    try:
        require_plausible_time(occurred_at, now)
    except InvalidRecord as error:
        raise RequestRefused(422, error.reason, error.detail, field=f"{prefix}occurred_at") from error


def _number(value: object, field: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(field, f"expected a number or null, got {_kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _invalid(field, "not a finite number")
    return number


def _kind(value: object) -> str:
    return {bool: "a boolean", str: "a string", dict: "an object", list: "an array"}.get(type(value), "something else")


def _invalid(field: str, detail: str) -> RequestRefused:
    return RequestRefused(422, "invalid_field", detail, field=field)
