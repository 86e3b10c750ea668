"""What ``/docs`` says of the bodies: descriptions and examples."""

from __future__ import annotations

from typing import Any

from centinela.web.openapi import JsonBody, name_base_currency, operation
from centinela_predictor.gateway.messages import Answer, Answers
from centinela_predictor.gateway.requests import BATCH_LIMIT, PredictBatch, PredictRequest

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
_ANSWERED = "The verdict, once it is in the log, or on the gateway's disk while Kafka is unavailable."
_REFUSALS = {
    409: "The transaction id was sent before with other values, or is in the log without a verdict known here.",
    413: "The body is too large.",
    503: "Not ready, or Kafka is unavailable and the outbox is full. Send the same request again: nothing is lost.",
}
PREDICT: dict[str, Any] = {
    "summary": "Decide on one transaction",
    **operation(
        JsonBody(
            PredictRequest,
            "One transaction. A raw column that is left out is a missing value; one that nobody knows is refused.",
            {"plain": _PLAIN, "full": _FULL},
        ),
        JsonBody(Answer, _ANSWERED, {"one": _ANSWER}),
        status=200,
        refusals=_REFUSALS,
    ),
}
PREDICT_BATCH: dict[str, Any] = {
    "summary": f"Decide on up to {BATCH_LIMIT:,} transactions",
    **operation(
        JsonBody(
            PredictBatch | list[PredictRequest],
            f"Up to {BATCH_LIMIT:,} transactions, or a plain array of them; all are decided on, or none.",
            {"batch": {"transactions": [_PLAIN, _FULL]}},
        ),
        JsonBody(Answers, _ANSWERED, {"batch": {"predictions": [_ANSWER]}}),
        status=200,
        refusals=_REFUSALS,
    ),
}


def amend(schemas: dict[str, Any]) -> None:
    """What the structs do not say: further fields are attributes, a batch has a limit, and the default currency."""
    schemas["PredictRequest"]["additionalProperties"] = {"type": ["number", "null"]}
    name_base_currency(schemas["PredictRequest"])
    schemas["PredictBatch"]["properties"]["transactions"]["maxItems"] = BATCH_LIMIT
