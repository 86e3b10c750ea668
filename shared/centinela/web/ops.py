"""``/health``, ``/ready`` and ``/metrics``: routes of every application, and an application of their own for processes
without an API."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from centinela.liveness.health import Health
from centinela.security.keys import ApiKeys, Role
from centinela.telemetry.metrics import REQUESTS_DENIED
from centinela.web.exception_handlers import RefusalResponses
from centinela.web.refusals import RequestRefused
from centinela.web.responses import json_response
from centinela.web.server import HttpServer

Payload = tuple[int, dict[str, object]]
"""HTTP status and JSON body."""
_DRAIN_S = 1.0


def health_payload(health: Health, model_loaded: bool | None = None) -> Payload:
    """The answer of ``/health``: 200 while live. ``model_loaded`` appears where a process serves a model.

    A process that is not live says why, and should be restarted.
    """
    reason = health.reason
    body: dict[str, object] = (
        {"status": "healthy"} if reason is None else {"status": "unhealthy", "live": False, "reason": reason}
    )
    if model_loaded is not None:
        body["model_loaded"] = model_loaded
    if waiting := health.unmet():
        body["waiting_for"] = waiting
    return (200 if reason is None else 503), body


def ready_payload(health: Health) -> Payload:
    """The answer of ``/ready``: 503 while any condition is unmet, and which."""
    return (200 if health.ready else 503), {"ready": health.ready, "waiting_for": health.unmet()}


@dataclass(frozen=True)
class _OpsEndpoints:
    health_answer: Callable[[], Payload]
    ready_answer: Callable[[], Payload]

    async def health(self) -> Response:
        status, body = self.health_answer()
        return json_response(body, status)

    async def ready(self) -> Response:
        status, body = self.ready_answer()
        return json_response(body, status)

    async def metrics(self) -> Response:
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


def ops_routes(health: Callable[[], Payload], ready: Callable[[], Payload], *, ready_when: str) -> APIRouter:
    """The three routes. They answer HEAD as well, as load balancers and uptime checks ask; the server leaves out the
    body. The document describes GET alone.

    Args:
        health: The answer of ``/health``.
        ready: The answer of ``/ready``.
        ready_when: What readiness means, for the document.
    """
    endpoints = _OpsEndpoints(health, ready)
    router = APIRouter()
    router.add_api_route("/health", endpoints.health, summary="Whether the process is alive")
    router.add_api_route("/ready", endpoints.ready, summary=ready_when)
    router.add_api_route(
        "/metrics", endpoints.metrics, summary="Metrics in Prometheus' text format", response_class=PlainTextResponse
    )
    for path, endpoint in (("/health", endpoints.health), ("/ready", endpoints.ready), ("/metrics", endpoints.metrics)):
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
    return router


@dataclass(frozen=True)
class OpsRoute:
    """A further path of an ``OpsServer``: GET or POST, without a body.

    Args:
        answer: The JSON body; called in a thread of a pool.
        role: The role that the path needs, where the process has API keys.
    """

    path: str
    answer: Callable[[], dict[str, object]]
    role: Role | None = None


@dataclass(frozen=True)
class _ExtraEndpoint:
    route: OpsRoute
    keys: ApiKeys

    async def answer(self, request: Request) -> Response:
        if self.route.role is not None:
            self.keys.require(request.headers.get("authorization"), self.route.role)
        return json_response(await run_in_threadpool(self.route.answer))


class OpsServer:
    """Serves *health*, the process's metrics and *routes* on *listening* until ``close``."""

    def __init__(
        self,
        health: Health,
        listening: socket.socket,
        routes: Sequence[OpsRoute] = (),
        *,
        model_loaded: Callable[[], bool] | None = None,
        keys: ApiKeys | None = None,
    ) -> None:
        app = FastAPI(openapi_url=None, exception_handlers=RefusalResponses(_count_denied).handlers())
        app.include_router(
            ops_routes(
                lambda: health_payload(health, model_loaded() if model_loaded else None),
                lambda: ready_payload(health),
                ready_when="Whether every condition is met",
            )
        )
        for route in routes:
            endpoint = _ExtraEndpoint(route, keys or ApiKeys(None))
            app.add_api_route(route.path, endpoint.answer, methods=["GET", "POST"])
        self._server = HttpServer(app, listening, _DRAIN_S, health)
        self.port = self._server.port
        self._server.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.stop()


def _count_denied(_request: Request, refused: RequestRefused) -> None:
    if refused.status in (401, 403):
        REQUESTS_DENIED.labels(refused.error).inc()
