"""The HTTP side: ``POST /transactions``, ``POST /labels``, and what every service answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from centinela.clock import Clock
from centinela.errors import DependencyUnavailable, InvalidRecord
from centinela.liveness.health import Health
from centinela.security.access import api_keys
from centinela.security.keys import Denied
from centinela.telemetry.logging import hashed_user
from centinela.web.backpressure import TIMEOUT_HEADER, Deadline, InFlight, RequestUnserved
from centinela.web.middleware import BodyTooLarge, CorrelationMiddleware, read_body
from centinela.web.ops import health_payload, ready_payload
from centinela_ingest import metrics
from centinela_ingest.api.handler import Accepted, IngestHandler
from centinela_ingest.api.openapi import LABELS, TRANSACTIONS, with_components
from centinela_ingest.api.publisher import Publisher
from centinela_ingest.api.requests import RequestRefused
from centinela_ingest.settings import IngestSettings

Accept = Callable[[bytes, datetime, str], Accepted]
_log = structlog.get_logger()


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request was not accepted; *field* and *index* where they are known."""

    error: str
    detail: str
    field: str | None = None
    index: int | None = None


def build_app(
    handler: IngestHandler, publisher: Publisher, health: Health, clock: Clock, settings: IngestSettings
) -> FastAPI:
    """The application. Nothing of a request is accepted before Kafka acknowledged all of it.

    Raises:
        InvalidKeys: The API keys of *settings* cannot be used.
    """
    keys = api_keys(settings)
    app = FastAPI(
        title="Centinela ingest",
        version="1",
        description="Takes card transactions and labels into Kafka.",
        redoc_url=None,
    )
    app.add_middleware(CorrelationMiddleware)

    in_flight = InFlight(settings.ingest_in_flight, "ingest")

    async def take(request: Request, kind: str, accept: Accept) -> Response:
        try:
            client = keys.require(request.headers.get("authorization"), "producer")
            with in_flight.one():
                deadline = Deadline(clock, request.headers.get(TIMEOUT_HEADER), settings.ingest_deadline_s)
                body = await deadline.body(read_body(request, settings.ingest_max_body_bytes))
                began = clock.monotonic()
                accepted = accept(body, clock.now(), request.state.traceparent)
                await publisher.publish(accepted.records, deadline)
        except Denied as denied:
            return _refuse(kind, denied.status, Refusal(error=denied.error, detail=denied.detail), denied.headers)
        except RequestUnserved as unserved:
            return _refuse(
                kind, unserved.status, Refusal(error=unserved.error, detail=unserved.detail), unserved.headers
            )
        except BodyTooLarge:
            return _refuse(
                kind,
                413,
                Refusal(error="too_large", detail=f"a body has at most {settings.ingest_max_body_bytes} bytes"),
            )
        except RequestRefused as refused:
            return _refuse(
                kind,
                refused.status,
                Refusal(error=refused.error, detail=refused.detail, field=refused.field, index=refused.index),
            )
        except InvalidRecord as invalid:
            return _refuse(kind, 413, Refusal(error=invalid.reason, detail=invalid.detail))
        except DependencyUnavailable as away:
            refusal = Refusal(
                error="kafka_unavailable", detail=f"not acknowledged; the same request may be sent again ({away})"
            )
            return _refuse(kind, 503, refusal, {"Retry-After": str(settings.ingest_retry_after_s)})
        seconds = clock.monotonic() - began
        metrics.DURATION.labels(kind).observe(seconds)
        metrics.ACCEPTED.labels(kind).inc(len(accepted.records))
        _log.info(
            f"{kind}.accepted",
            count=len(accepted.records),
            transaction_id=accepted.transaction_ids[0],
            duration_s=round(seconds, 6),
            user=hashed_user(accepted.user_id, settings.log_salt),
            client=client,
        )
        return _json(202, {"accepted": len(accepted.records), "transaction_ids": accepted.transaction_ids})

    @app.post("/transactions", status_code=202, summary="Take one transaction, or an array of them", **TRANSACTIONS)
    async def transactions(request: Request) -> Response:
        return await take(request, "transactions", handler.transactions)

    @app.post("/labels", status_code=202, summary="Take one label, or an array of them", **LABELS)
    async def labels(request: Request) -> Response:
        return await take(request, "labels", handler.labels)

    @app.get("/health", summary="Whether the process lives")
    async def live() -> Response:
        return _json(*health_payload(health))

    @app.get("/ready", summary="Whether Kafka takes records")
    async def ready() -> Response:
        return _json(*ready_payload(health))

    @app.get("/metrics", summary="Metrics in Prometheus' text format", response_class=PlainTextResponse)
    async def scrape() -> Response:
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    with_components(app)
    return app


def _json(status: int, body: Any) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def _refuse(kind: str, status: int, refusal: Refusal, headers: dict[str, str] | None = None) -> Response:
    metrics.REFUSED.labels(kind, refusal.error).inc()
    _log.warning(f"{kind}.refused", status=status, error=refusal.error, field=refusal.field, index=refusal.index)
    response = _json(status, refusal)
    response.headers.update(headers or {})
    return response
