"""What ``/docs`` says of the bodies: descriptions and examples."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from centinela.web.openapi import JsonBody, name_base_currency, operation
from centinela_ingest.api.requests import AcceptedAnswer, LabelIn, TransactionIn

_TRANSACTION = {
    "transaction_id": "tx-0001",
    "user_id": "u-42",
    "terminal_id": "t-7",
    "occurred_at": "2026-03-01T10:15:30Z",
    "amount": 100.5,
    "currency": "EUR",
    "attributes": {"v1": 0.5, "v2": -1.2},
}
_LABEL = {
    "transaction_id": "tx-0001",
    "user_id": "u-42",
    "is_fraud": True,
    "occurred_at": "2026-03-01T10:15:30Z",
    "reported_at": "2026-03-08T09:00:00Z",
}
_ACCEPTED = JsonBody(AcceptedAnswer, "Kafka has all of it.", {"one": {"accepted": 1, "transaction_ids": ["tx-0001"]}})
_REFUSALS = {
    413: "The body, or one of its records, is too large, or the batch has too many items.",
    422: "A field is invalid; nothing of the request was accepted.",
    503: "Kafka does not answer. Send the same request again after `Retry-After`.",
}
TRANSACTIONS: dict[str, Any] = {
    "summary": "Accept one transaction, or an array of them",
    **operation(
        JsonBody(
            TransactionIn | Annotated[list[TransactionIn], Meta(min_length=1)],
            "One transaction, or an array of them.",
            {"one": _TRANSACTION, "batch": [_TRANSACTION]},
        ),
        _ACCEPTED,
        status=202,
        refusals=_REFUSALS,
    ),
}
LABELS: dict[str, Any] = {
    "summary": "Accept one label, or an array of them",
    **operation(
        JsonBody(
            LabelIn | Annotated[list[LabelIn], Meta(min_length=1)],
            "One label, or an array of them.",
            {"one": _LABEL, "batch": [_LABEL]},
        ),
        _ACCEPTED,
        status=202,
        refusals=_REFUSALS,
    ),
}


def amend(schemas: dict[str, Any]) -> None:
    """What the structs do not say: clients send no verdict, though the event has one, and the default currency."""
    schemas["TransactionIn"]["properties"].pop("verdict")
    name_base_currency(schemas["TransactionIn"])
    del schemas["AttachedVerdict"]
