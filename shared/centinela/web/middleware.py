"""What every HTTP application does with a request first: correlate it, and read its body up to a limit."""

from __future__ import annotations

import re
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from centinela.telemetry.tracing import TRACEPARENT, trace_id, traceparent_or_new
from centinela.web.refusals import RequestRefused

REQUEST_ID = "x-request-id"
_DIGITS = 18
_PLAIN = re.compile(r"[\x21-\x7e]{1,128}")


class CorrelationMiddleware:
    """Adopts the ``traceparent`` and ``X-Request-ID`` of a request or creates them, binds them in logs and returns
    them.

    Handlers find both in ``request.state`` as ``traceparent`` and ``request_id``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        traceparent = traceparent_or_new(headers.get(TRACEPARENT))
        given = headers.get(REQUEST_ID)
        request_id = given if given and _PLAIN.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {}).update(traceparent=traceparent, request_id=request_id)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update({TRACEPARENT: traceparent, REQUEST_ID: request_id})
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id, trace_id=trace_id(traceparent)):
            await self._app(scope, receive, answer)


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body.

    Raises:
        RequestRefused: 413, it has more than *limit* bytes, as declared or as read.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > _DIGITS or int(declared) > limit):
        raise _too_large(limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> RequestRefused:
    return RequestRefused(413, "too_large", f"the body is larger than the {limit} bytes allowed")
