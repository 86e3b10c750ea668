"""A small HTTP server for processes without an API: ``/health``, ``/ready``, ``/metrics``."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from centinela.liveness.health import Health
from centinela.security.keys import ApiKeys, Denied, Role
from centinela.telemetry.metrics import REQUESTS_DENIED

_log = structlog.get_logger(__name__)
StartResponse = Callable[..., Any]


def health_payload(health: Health, model_loaded: bool | None = None) -> tuple[int, dict[str, object]]:
    """HTTP status and body of ``/health``: 200 while live. ``model_loaded`` appears where a process serves a model.

    A process that is not live says why, and should be started anew.
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


def ready_payload(health: Health) -> tuple[int, dict[str, object]]:
    """HTTP status and body of ``/ready``: 503 while anything is unmet, naming it."""
    return (200 if health.ready else 503), {"ready": health.ready, "waiting_for": health.unmet()}


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Requests for health and metrics are no events."""


class OpsServer:
    """Serves *health* and the process's metrics from a daemon thread.

    Args:
        port: TCP port; 0 takes a free one (see ``port``).
        extra: Further paths, each to a function that gives a JSON body.
        keys: Who may ask for the paths of *roles*.
        roles: The role that each of these paths needs; the others are open.
    """

    def __init__(
        self,
        health: Health,
        host: str,
        port: int,
        extra: dict[str, Callable[[], dict[str, object]]] | None = None,
        model_loaded: Callable[[], bool] | None = None,
        *,
        keys: ApiKeys | None = None,
        roles: Mapping[str, Role] | None = None,
    ) -> None:
        self._health, self._extra, self._model_loaded = health, extra or {}, model_loaded
        self._keys, self._roles = keys or ApiKeys(None), roles or {}
        self._server = make_server(host, port, self._app, server_class=_Server, handler_class=_Quiet)
        self.port: int = self._server.server_port
        threading.Thread(target=self._server.serve_forever, name="ops", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _app(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        headers: dict[str, str] = {}
        if path == "/metrics":
            start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
            return [generate_latest(REGISTRY)]
        if path == "/health":
            status, body = health_payload(self._health, self._model_loaded() if self._model_loaded else None)
        elif path == "/ready":
            status, body = ready_payload(self._health)
        elif path in self._extra:
            try:
                if path in self._roles:
                    self._keys.require(environ.get("HTTP_AUTHORIZATION"), self._roles[path])
                status, body = 200, self._extra[path]()
            except Denied as denied:
                REQUESTS_DENIED.labels(denied.error).inc()
                _log.warning("request.denied", path=path, status=denied.status, error=denied.error)
                status, body, headers = denied.status, {"error": denied.error, "detail": denied.detail}, denied.headers
        else:
            status, body = 404, {"error": f"no {path} here", "paths": ["/health", "/ready", "/metrics", *self._extra]}
        start_response(
            f"{status} {HTTPStatus(status).phrase}", [("Content-Type", "application/json"), *headers.items()]
        )
        return [json.dumps(body).encode()]
