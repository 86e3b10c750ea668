"""OpenAPI documents of applications whose bodies are msgspec structs: the schemas are derived from the structs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from fastapi import FastAPI

from centinela.web.backpressure import TIMEOUT_HEADER
from centinela.web.refusals import Refusal

_REFERENCE = "#/components/schemas/{name}"
_SECURITY_SCHEMES: dict[str, Any] = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key, where the service has keys."}
}
_OPTIONAL_KEY: list[dict[str, list[str]]] = [{}, {"apiKey": []}]
_TIMEOUT_PARAMETER: dict[str, object] = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "integer", "minimum": 1},
    "description": "Milliseconds that the request may take. It can only shorten the service's own limit.",
}
_REFUSALS = {
    400: "The body is not JSON, or a header is invalid.",
    401: "The API key is missing or unknown.",
    403: "The API key has another role.",
    408: "The body did not arrive in time.",
    422: "A field is invalid; the answer names it.",
    429: "Too many requests are in flight; this one was not read. Send it again after `Retry-After`.",
    504: "The request took too long. Send the same request again: what was already done remains valid.",
}
_REFUSAL_EXAMPLE = {"error": "invalid_field", "detail": "Expected `float` >= 0.0", "field": "amount"}


@dataclass(frozen=True)
class JsonBody:
    """A JSON body in the document.

    Args:
        type: What it is decoded to, or encoded from.
        examples: Example bodies by name.
    """

    type: Any
    description: str
    examples: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The body's part of an operation."""
        examples = {name: {"value": value} for name, value in self.examples.items()}
        content = {"schema": _schema(self.type)} | ({"examples": examples} if examples else {})
        return {"description": self.description, "content": {"application/json": content}}


def operation(request: JsonBody, answer: JsonBody, *, status: int, refusals: Mapping[int, str]) -> dict[str, Any]:
    """The arguments of a FastAPI route that decodes its body itself.

    Args:
        status: The status of *answer*.
        refusals: The statuses that this operation refuses with, beyond those of every operation, and why.
    """
    responses: dict[int | str, dict[str, Any]] = {status: answer.document()}
    for code, description in sorted((_REFUSALS | dict(refusals)).items()):
        content = {"schema": _schema(Refusal), "example": _REFUSAL_EXAMPLE}
        responses[code] = {"description": description, "content": {"application/json": content}}
    return {
        "status_code": status,
        "responses": responses,
        "openapi_extra": {
            "security": _OPTIONAL_KEY,
            "parameters": [_TIMEOUT_PARAMETER],
            "requestBody": request.document() | {"required": True},
        },
    }


def describe(
    app: FastAPI, types: Sequence[Any], amend: Callable[[dict[str, Any]], None] = lambda _schemas: None
) -> None:
    """Add the schemas of *types* and of refusals to the document of *app*.

    Args:
        amend: Changes the schemas where the structs do not say everything.
    """
    _, schemas = msgspec.json.schema_components([*types, Refusal], ref_template=_REFERENCE)
    amend(schemas)
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(schemas)
        components["securitySchemes"] = _SECURITY_SCHEMES
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def name_base_currency(schema: dict[str, Any]) -> None:
    """Say in the *schema* of a transaction which currency it has by default, which depends on the settings."""
    schema["properties"]["currency"].pop("default")
    schema["properties"]["currency"]["description"] = "ISO 4217 code; CENTINELA_BASE_CURRENCY by default."


def _schema(type_: Any) -> dict[str, Any]:
    [schema], _ = msgspec.json.schema_components([type_], ref_template=_REFERENCE)
    return dict(schema)
