"""The HTTP application: ``POST /transactions``, ``POST /labels``, and the endpoints that every service has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from fastapi import FastAPI, Request, Response

from centinela.clock import Clock
from centinela.errors import DependencyUnavailable
from centinela.liveness.health import Health
from centinela.security.access import api_keys
from centinela.security.keys import ApiKeys
from centinela.telemetry.logging import hashed_user
from centinela.web.backpressure import TIMEOUT_HEADER, Deadline, InFlight
from centinela.web.exception_handlers import RefusalResponses
from centinela.web.middleware import CorrelationMiddleware, read_body
from centinela.web.openapi import describe
from centinela.web.ops import health_payload, ops_routes, ready_payload
from centinela.web.refusals import RequestRefused, retry_after
from centinela.web.responses import json_response
from centinela.web.unknown_fields import count_unknown
from centinela_ingest import metrics
from centinela_ingest.api import openapi
from centinela_ingest.api.handler import Accepted, IngestHandler
from centinela_ingest.api.publisher import Publisher
from centinela_ingest.api.requests import AcceptedAnswer, LabelIn, TransactionIn
from centinela_ingest.settings import IngestSettings

Accept = Callable[[bytes, datetime, str], Accepted]
_KINDS = {"/transactions": "transactions", "/labels": "labels"}
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class IngestApi:
    """The endpoints that write. Nothing of a request is accepted before Kafka has acknowledged all of it."""

    handler: IngestHandler
    publisher: Publisher
    clock: Clock
    settings: IngestSettings
    keys: ApiKeys
    in_flight: InFlight

    async def transactions(self, request: Request) -> Response:
        return await self._take(request, "transactions", self.handler.transactions)

    async def labels(self, request: Request) -> Response:
        return await self._take(request, "labels", self.handler.labels)

    async def _take(self, request: Request, kind: str, accept: Accept) -> Response:
        client = self.keys.require(request.headers.get("authorization"), "producer")
        with self.in_flight.one():
            deadline = Deadline(self.clock, request.headers.get(TIMEOUT_HEADER), self.settings.ingest_deadline_s)
            body = await deadline.body(read_body(request, self.settings.ingest_max_body_bytes))
            started = self.clock.monotonic()
            accepted = accept(body, self.clock.now(), request.state.traceparent)
            await self.publisher.publish(accepted.records, deadline)
        seconds = self.clock.monotonic() - started
        metrics.DURATION.labels(kind).observe(seconds)
        metrics.ACCEPTED.labels(kind).inc(len(accepted.records))
        _log.info(
            f"{kind}.accepted",
            count=len(accepted.records),
            transaction_id=accepted.transaction_ids[0],
            duration_s=round(seconds, 6),
            user=hashed_user(accepted.user_id, self.settings.log_salt),
            client=client,
        )
        count_unknown("ingest", accepted.unknown_fields)
        answer = AcceptedAnswer(len(accepted.records), accepted.transaction_ids, accepted.unknown_fields)
        return json_response(answer, 202)


def build_app(
    handler: IngestHandler, publisher: Publisher, health: Health, clock: Clock, settings: IngestSettings
) -> FastAPI:
    """The application.

    Raises:
        InvalidKeys: The API keys of *settings* cannot be used.
    """
    in_flight = InFlight(settings.ingest_in_flight, "ingest")
    api = IngestApi(handler, publisher, clock, settings, api_keys(settings), in_flight)

    def kafka_unavailable(error: DependencyUnavailable) -> RequestRefused:
        detail = f"not acknowledged; the same request may be sent again ({error})"
        return RequestRefused(503, "kafka_unavailable", detail, headers=retry_after(settings.ingest_retry_after_s))

    app = FastAPI(
        title="Centinela ingest",
        version="1",
        description="Accepts card transactions and labels and writes them to Kafka.",
        redoc_url=None,
        exception_handlers=RefusalResponses(_count, kafka_unavailable).handlers(),
    )
    app.add_middleware(CorrelationMiddleware)
    app.add_api_route("/transactions", api.transactions, methods=["POST"], **openapi.TRANSACTIONS)
    app.add_api_route("/labels", api.labels, methods=["POST"], **openapi.LABELS)
    app.include_router(
        ops_routes(
            lambda: health_payload(health), lambda: ready_payload(health), ready_when="Whether Kafka accepts records"
        )
    )
    describe(app, [TransactionIn, LabelIn, AcceptedAnswer], amend=openapi.amend)
    return app


def _count(request: Request, refused: RequestRefused) -> None:
    if kind := _KINDS.get(request.url.path):
        metrics.REFUSED.labels(kind, refused.error).inc()
