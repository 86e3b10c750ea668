"""The gateway's HTTP side: ``/predict``, ``/predict/batch``, ``/model`` and the endpoints that every process has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.exceptions import HTTPException

from centinela.clock import Clock
from centinela.errors import DependencyUnavailable
from centinela.security.keys import ApiKeys, Denied
from centinela.web.backpressure import RETRY_AFTER_S, TIMEOUT_HEADER, Deadline, InFlight, RequestUnserved
from centinela.web.middleware import BodyTooLarge, CorrelationMiddleware, read_body
from centinela.web.openapi import SCHEMES
from centinela_predictor.gateway import metrics, openapi
from centinela_predictor.gateway.messages import Answer
from centinela_predictor.gateway.outbox import OutboxFull
from centinela_predictor.gateway.readiness import Standing
from centinela_predictor.gateway.requests import BODY_LIMIT, PredictRequest, RefusedRequest, parse_many, parse_one
from centinela_predictor.gateway.scorer import Gateway, NotReady
from centinela_predictor.models.slot import ModelSlot, describe

_log = structlog.get_logger()
_encoder = msgspec.json.Encoder()
_UNAVAILABLE: dict[type[DependencyUnavailable], str] = {NotReady: "not_ready", OutboxFull: "outbox_full"}


def build_app(
    gateway: Gateway,
    slot: ModelSlot,
    standing: Standing,
    clock: Clock,
    *,
    deadline_s: float,
    in_flight: int,
    keys: ApiKeys,
) -> FastAPI:
    """The application; its life does not manage *gateway*'s threads.

    Args:
        deadline_s: Longest time of a request.
        in_flight: Requests at once at most.
        keys: Who may ask for verdicts.
    """
    app = FastAPI(
        title="Centinela gateway",
        description=(
            "Decides on card transactions; every verdict is in the log, or on the disk on its way there, before it is"
            " answered."
        ),
        version="1",
        redoc_url=None,
    )
    app.add_middleware(CorrelationMiddleware)

    requests_in_flight = InFlight(in_flight, "gateway")

    async def answer(request: Request, parse: Callable[[bytes, datetime], list[PredictRequest]]) -> list[Answer]:
        keys.require(request.headers.get("authorization"), "scorer")
        with requests_in_flight.one():
            deadline = Deadline(clock, request.headers.get(TIMEOUT_HEADER), deadline_s)
            requests = parse(await deadline.body(_body(request)), clock.now())
            future = gateway.submit(requests, request.state.traceparent, request.state.request_id, deadline)
            return await deadline.answer(asyncio.wrap_future(future))

    @app.post("/predict", summary="Decide on one transaction", **openapi.PREDICT)
    async def predict(request: Request) -> Response:
        started = clock.monotonic()
        [given] = await answer(request, lambda body, now: [parse_one(body, now)])
        metrics.PREDICTION_LATENCY.observe(clock.monotonic() - started)
        return _json(given)

    @app.post("/predict/batch", summary="Decide on up to 1,000 transactions", **openapi.PREDICT_BATCH)
    async def predict_batch(request: Request) -> Response:
        return _json({"predictions": await answer(request, parse_many)})

    @app.get("/model", summary="The models in service")
    async def model() -> Response:
        return _json(describe(slot.pair))

    @app.get("/health", summary="Whether the process lives")
    async def health_() -> Response:
        status, body = standing.health(slot.loaded)
        return _json(body, status)

    @app.get("/ready", summary="Whether a verified model serves on state that was caught up")
    async def ready() -> Response:
        status, body = standing.ready()
        return _json(body, status)

    @app.get("/metrics", summary="Metrics in Prometheus' text form", response_class=PlainTextResponse)
    async def metrics_() -> Response:
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(Denied)
    async def denied(_request: Request, error: Denied) -> Response:
        _log.warning("request.denied", status=error.status, error=error.error)
        return _refusal(error.status, error.error, None, error.detail, error.headers)

    @app.exception_handler(RefusedRequest)
    async def refused(_request: Request, error: RefusedRequest) -> Response:
        return _refusal(error.status, error.error, error.field, error.detail)

    @app.exception_handler(RequestUnserved)
    async def unserved(_request: Request, error: RequestUnserved) -> Response:
        _log.warning("request.unserved", status=error.status, error=error.error)
        return _refusal(error.status, error.error, None, error.detail, error.headers)

    @app.exception_handler(DependencyUnavailable)
    async def unavailable(_request: Request, error: DependencyUnavailable) -> Response:
        _log.warning("request.unavailable", detail=str(error))
        name = next((name for kind, name in _UNAVAILABLE.items() if isinstance(error, kind)), "unavailable")
        return _refusal(503, name, None, str(error), {"Retry-After": str(RETRY_AFTER_S)})

    @app.exception_handler(HTTPException)
    async def other(_request: Request, error: HTTPException) -> Response:
        return _refusal(error.status_code, "http_error", None, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def failed(_request: Request, error: Exception) -> Response:
        _log.error("request.failed", exc_info=error)
        return _refusal(500, "internal", None, "the request failed; the log has the reason")

    generate = app.openapi

    def with_schemas() -> dict[str, Any]:
        schema = generate()
        components = schema.setdefault("components", {})
        components.setdefault("schemas", {}).update(openapi.components())
        components["securitySchemes"] = SCHEMES
        return schema

    app.openapi = with_schemas  # type: ignore[method-assign]
    return app


async def _body(request: Request) -> bytes:
    try:
        return await read_body(request, BODY_LIMIT)
    except BodyTooLarge:
        raise RefusedRequest(
            413, "too_large", None, f"the body is larger than the {BODY_LIMIT} bytes allowed"
        ) from None


def _json(body: object, status: int = 200) -> Response:
    return Response(_encoder.encode(body), status, media_type="application/json")


def _refusal(
    status: int, error: str, field: str | None, detail: str, headers: dict[str, str] | None = None
) -> Response:
    metrics.GATEWAY_REFUSED.labels(error).inc()
    return Response(
        _encoder.encode(openapi.Refusal(error=error, field=field, detail=detail)), status, headers, "application/json"
    )
