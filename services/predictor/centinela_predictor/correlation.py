"""ASGI middleware: a request's ``traceparent`` and ``X-Request-ID`` are taken over or made, bound in logs, and returned."""

from __future__ import annotations

import re
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from centinela.telemetry.correlation import TRACEPARENT, trace_id, traceparent_or_new

REQUEST_ID = "x-request-id"
_SOUND = re.compile(r"^[\x21-\x7e]{1,128}$")


class CorrelationMiddleware:
    """Puts both into ``request.state`` as ``traceparent`` and ``request_id``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        traceparent = traceparent_or_new(headers.get(TRACEPARENT))
        given = headers.get(REQUEST_ID)
        request_id = given if given and _SOUND.match(given) else uuid.uuid4().hex
        scope.setdefault("state", {}).update(traceparent=traceparent, request_id=request_id)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update({TRACEPARENT: traceparent, REQUEST_ID: request_id})
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id, trace_id=trace_id(traceparent)):
            await self._app(scope, receive, send_with_headers)
