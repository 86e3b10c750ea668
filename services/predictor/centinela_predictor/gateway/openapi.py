"""What ``/docs`` shows: schemas from the msgspec structs, and examples [P]."""

from __future__ import annotations

from typing import Any

import msgspec

from centinela.web.backpressure import REFUSALS, TIMEOUT_PARAMETER
from centinela.web.openapi import DENIALS, OPTIONAL
from centinela_predictor.gateway.messages import Answer
from centinela_predictor.gateway.requests import BATCH_LIMIT, PredictRequest

_PLAIN = {"amount": 100.5, "time": 42, "v1": 0.5, "v2": -1.2}
_FULL = {
    "transaction_id": "tx-0001",
    "user_id": "u-42",
    "terminal_id": "t-7",
    "occurred_at": "2026-03-01T10:15:30Z",
    "amount": 100.5,
    "currency": "EUR",
    "attributes": {"v1": 0.5, "v2": -1.2},
}
_ANSWER = {
    "transaction_id": "tx-0001",
    "is_fraud": False,
    "fraud_probability": 0.031,
    "decision": "approve",
    "threshold": 0.42,
    "model_version": "3",
    "variant": "champion",
    "reasons": [],
    "occurred_at": "2026-03-01T10:15:30Z",
    "scored_at": "2026-03-01T10:15:30.120Z",
    "repeated": False,
}
_REFUSED = {"error": "invalid_field", "field": "amount", "detail": "Expected `float` >= 0.0"}


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was not served. ``field`` is the path of the field at fault, or null."""

    error: str
    field: str | None
    detail: str


def components() -> dict[str, Any]:
    """JSON Schemas of the bodies, by name."""
    _, schemas = msgspec.json.schema_components(
        [PredictRequest, Answer, Refusal], ref_template="#/components/schemas/{name}"
    )
    schemas["PredictRequest"]["additionalProperties"] = {"type": ["number", "null"]}
    return schemas


def _body(description: str, schema: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    named = {name: {"value": value} for name, value in examples.items()}
    return {
        "description": description,
        "required": True,
        "content": {"application/json": {"schema": schema, "examples": named}},
    }


def _responses(schema: dict[str, Any], example: Any) -> dict[int | str, dict[str, Any]]:
    refused = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}, "example": _REFUSED}}
    return {
        200: {
            "description": "The verdict, once the log has it, or the gateway's disk while Kafka is away.",
            "content": {"application/json": {"schema": schema, "example": example}},
        },
        400: {"description": "The body is no JSON, or a header does not hold.", "content": refused},
        **{status: {"description": text, "content": refused} for status, text in REFUSALS.items()},
        **{status: {"description": text, "content": refused} for status, text in DENIALS.items()},
        409: {"description": "The transaction id was given before with other values.", "content": refused},
        413: {"description": "The body is too large.", "content": refused},
        422: {"description": "A field does not fit; the answer names it.", "content": refused},
        503: {
            "description": "Not ready, or Kafka is away and the outbox is full; nothing is lost by trying again.",
            "content": refused,
        },
    }


_REQUEST = {"$ref": "#/components/schemas/PredictRequest"}
PREDICT: dict[str, Any] = {
    "openapi_extra": {
        "security": OPTIONAL,
        "parameters": [TIMEOUT_PARAMETER],
        "requestBody": _body(
            "One transaction; missing features are missing values, not errors.",
            _REQUEST,
            {"plain": _PLAIN, "full": _FULL},
        ),
    },
    "responses": _responses({"$ref": "#/components/schemas/Answer"}, _ANSWER),
}
_ANSWERS = {
    "type": "object",
    "properties": {"predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Answer"}}},
}
_BATCH = {
    "type": "object",
    "required": ["transactions"],
    "properties": {"transactions": {"type": "array", "items": _REQUEST, "maxItems": BATCH_LIMIT}},
}
PREDICT_BATCH: dict[str, Any] = {
    "openapi_extra": {
        "security": OPTIONAL,
        "parameters": [TIMEOUT_PARAMETER],
        "requestBody": _body(
            f"Up to {BATCH_LIMIT} transactions, or a plain array of them; all are decided on, or none.",
            _BATCH,
            {"batch": {"transactions": [_PLAIN, _FULL]}},
        ),
    },
    "responses": _responses(_ANSWERS, {"predictions": [_ANSWER]}),
}
