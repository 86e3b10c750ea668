"""HTTP bodies to transactions, with errors that name the field [P]."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Any, NoReturn

import msgspec
from msgspec import Meta

from centinela.codec import require_plausible_time
from centinela.errors import InvalidRecord
from centinela.events import Id, Instant, Money

BATCH_LIMIT = 1_000
_DEEPEST = 4
BODY_LIMIT = 1_000_000


class RefusedRequest(Exception):
    """A request that cannot be served as it stands.

    Args:
        status: HTTP status, 4xx.
        error: A constant in snake_case.
        field: Path of the field at fault (``amount``, ``transactions[3].v1``), or None where it is the body.
        detail: What is wrong.
    """

    def __init__(self, status: int, error: str, field: str | None, detail: str) -> None:
        super().__init__(f"{error}: {field}: {detail}")
        self.status, self.error, self.field, self.detail = status, error, field, detail


class PredictRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction to decide on. Numeric fields beside these become ``attributes``."""

    amount: Money
    transaction_id: Id | None = None
    user_id: Id | None = None
    terminal_id: Id | None = None
    occurred_at: Instant | None = None
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] = "EUR"
    attributes: dict[str, float | None] = {}


class _Wrapped(msgspec.Struct, frozen=True):
    transactions: list[PredictRequest]


_FIELDS = frozenset(PredictRequest.__struct_fields__)
_one = msgspec.json.Decoder(PredictRequest)
_many = msgspec.json.Decoder(list[PredictRequest] | _Wrapped)
_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"missing required field `(?P<name>[^`]+)`")


def parse_one(body: bytes, now: datetime) -> PredictRequest:
    """The transaction of ``POST /predict``.

    Raises:
        RefusedRequest: 400 for malformed JSON, 422 for a field that does not fit, 413 for a body past the limit.
    """
    request: PredictRequest = _typed(_one.decode, body)
    return _completed(request, _untyped(body), now, "")


def parse_many(body: bytes, now: datetime) -> list[PredictRequest]:
    """The transactions of ``POST /predict/batch``: a JSON array, or an object with the array ``transactions``.

    Raises:
        RefusedRequest: As ``parse_one``; also 422 where there are more than ``BATCH_LIMIT``.
    """
    parsed = _typed(_many.decode, body)
    wrapped = isinstance(parsed, _Wrapped)
    requests: list[PredictRequest] = parsed.transactions if wrapped else parsed
    if len(requests) > BATCH_LIMIT:
        raise RefusedRequest(422, "too_many", "transactions", f"{len(requests)} transactions; at most {BATCH_LIMIT}")
    raw = _untyped(body)
    rows, prefix = (raw["transactions"], "transactions") if wrapped else (raw, "")
    return [
        _completed(request, row, now, f"{prefix}[{n}].")
        for n, (request, row) in enumerate(zip(requests, rows, strict=True))
    ]


def _typed(decode: Callable[[bytes], Any], body: bytes) -> Any:
    if len(body) > BODY_LIMIT:
        raise RefusedRequest(413, "too_large", None, f"the body has {len(body)} bytes; at most {BODY_LIMIT}")
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise RefusedRequest(422, "invalid_field", *_located(str(error), body)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse_unreadable(body, str(error))


def _untyped(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse_unreadable(body, str(error))


def _completed(request: PredictRequest, raw: dict[str, Any], now: datetime, prefix: str) -> PredictRequest:
    """*request* with the numeric fields of *raw* that it does not name as attributes, and its time checked."""
    if request.occurred_at is not None:
        _check_time(request.occurred_at, now, prefix)
    more: dict[str, float | None] = {}
    for name, value in raw.items():
        if name in _FIELDS:
            continue
        if name in request.attributes:
            raise RefusedRequest(422, "invalid_field", prefix + name, "given twice: here and in attributes")
        more[name] = _number(value, prefix + name)
    return msgspec.structs.replace(request, attributes=request.attributes | more) if more else request


def _check_time(occurred_at: datetime, now: datetime, prefix: str) -> None:
    try:
        require_plausible_time(occurred_at, now)
    except InvalidRecord as error:
        raise RefusedRequest(422, error.reason, f"{prefix}occurred_at", error.detail) from error


def _number(value: object, field: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedRequest(422, "invalid_field", field, f"expected a number or null, got {_kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RefusedRequest(422, "invalid_field", field, "the number is too large or none")
    return number


def _kind(value: object) -> str:
    return {bool: "a boolean", str: "a string", dict: "an object", list: "an array"}.get(type(value), "something else")


def _located(message: str, body: bytes) -> tuple[str | None, str]:
    """Field and detail of msgspec's *message*; a nameless key (``[...]``) is looked up in *body*."""
    at = _PATH.search(message)
    path, detail = (at["path"], message[: at.start()]) if at else ("", message)
    if missing := _MISSING.search(detail):
        path = f"{path}.{missing['name']}" if path else missing["name"]
    if path.endswith("[...]"):
        path = _first_bad_number(body, path.removesuffix("[...]")) or path
    return path or None, detail


def _refuse_unreadable(body: bytes, detail: str) -> NoReturn:
    """Refuse a body that is no JSON; where only ``NaN`` or a number out of range is at fault, name its field."""
    if field := _first_bad_number(body, ""):
        raise RefusedRequest(422, "invalid_field", field, "not a finite JSON number")
    raise RefusedRequest(400, "malformed_json", None, detail)


def _first_bad_number(body: bytes, below: str) -> str | None:
    """Path of the first value under *below* that is no finite number, by a lenient reader. Only on the way to an
    error."""
    try:
        found = _walk(json.loads(body), "")
        for path, value in found:
            fault = isinstance(value, float) and not math.isfinite(value)
            if below:
                fault = (
                    path.startswith(below) and (fault or isinstance(value, bool | str | list | dict)) and path != below
                )
            if fault:
                return path
    except (ValueError, RecursionError):
        return None
    return None


def _walk(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every value with its path, as deep as a field of ours can stand: naming what is deeper would cost more than
    reading it."""
    yield path, value
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from _walk(inner, f"{path}[{n}]", depth + 1)
