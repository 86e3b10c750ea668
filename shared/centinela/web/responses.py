"""JSON responses, encoded by msgspec."""

from __future__ import annotations

import msgspec
from fastapi import Response

_encoder = msgspec.json.Encoder()


def json_response(body: object, status: int = 200) -> Response:
    """*body* (a struct, or plain values) as the response."""
    return Response(_encoder.encode(body), status, media_type="application/json")
