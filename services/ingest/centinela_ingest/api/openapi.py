"""What ``/docs`` shows of the bodies, which are decoded without FastAPI's models [P]."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI

from centinela.web.backpressure import REFUSALS, TIMEOUT_PARAMETER
from centinela.web.openapi import DENIALS, OPTIONAL, SCHEMES
from centinela_ingest.api.requests import LabelIn, TransactionIn

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
_SCHEMAS, _COMPONENTS = msgspec.json.schema_components(
    [TransactionIn, LabelIn], ref_template="#/components/schemas/{name}"
)
_REFUSAL = {
    "type": "object",
    "required": ["error", "detail"],
    "properties": {
        "error": {"type": "string"},
        "detail": {"type": "string"},
        "field": {"type": "string"},
        "index": {"type": "integer"},
    },
}
_COMPONENTS["TransactionIn"]["properties"].pop("verdict")


def _operation(schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    def answer(description: str) -> dict[str, Any]:
        return {
            "description": description,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}},
        }

    body = {"oneOf": [schema, {"type": "array", "items": schema, "minItems": 1}]}
    accepted = {
        "type": "object",
        "properties": {
            "accepted": {"type": "integer"},
            "transaction_ids": {"type": "array", "items": {"type": "string"}},
        },
    }
    return {
        "responses": {
            202: {"description": "Kafka has all of it.", "content": {"application/json": {"schema": accepted}}},
            400: answer("No JSON, or a header that does not hold."),
            **{status: answer(text) for status, text in (DENIALS | REFUSALS).items()},
            413: answer("Too large, or too many."),
            422: answer("A field does not hold; nothing was taken."),
            503: answer("Kafka does not answer; send the same again after `Retry-After`."),
        },
        "openapi_extra": {
            "security": OPTIONAL,
            "parameters": [TIMEOUT_PARAMETER],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": body,
                        "examples": {"one": {"value": example}, "batch": {"value": [example]}},
                    }
                },
            },
        },
    }


TRANSACTIONS = _operation(_SCHEMAS[0], _TRANSACTION)
LABELS = _operation(_SCHEMAS[1], _LABEL)


def with_components(app: FastAPI) -> None:
    """Add the schemas of the bodies to *app*'s description."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        description = plain()
        components = description.setdefault("components", {})
        components.setdefault("schemas", {}).update(_COMPONENTS | {"Refusal": _REFUSAL})
        components["securitySchemes"] = SCHEMES
        return description

    app.openapi = described  # type: ignore[method-assign]
