"""API keys as OpenAPI documents tell of them."""

from __future__ import annotations

from typing import Any

SCHEMES: dict[str, Any] = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key, where the service has keys set."}
}
OPTIONAL: list[dict[str, list[str]]] = [{}, {"apiKey": []}]
DENIALS = {401: "No API key, or none that is known here.", 403: "The API key has another role."}
