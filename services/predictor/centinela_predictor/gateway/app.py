"""The gateway's HTTP application: ``/predict``, ``/predict/batch``, ``/model`` and the endpoints of every process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec
from fastapi import FastAPI, Request, Response

from centinela.clock import Clock
from centinela.errors import DependencyUnavailable
from centinela.security.keys import ApiKeys
from centinela.web import exception_handlers
from centinela.web.backpressure import RETRY_AFTER_S, TIMEOUT_HEADER, Deadline, InFlight
from centinela.web.exception_handlers import RefusalResponses
from centinela.web.middleware import CorrelationMiddleware, read_body
from centinela.web.openapi import describe
from centinela.web.ops import ops_routes
from centinela.web.refusals import RequestRefused, retry_after
from centinela.web.responses import json_response
from centinela.web.unknown_fields import count_unknown
from centinela_predictor.gateway import metrics, openapi
from centinela_predictor.gateway.gateway import Gateway, NotReady
from centinela_predictor.gateway.messages import Answer, Answers
from centinela_predictor.gateway.outbox import OutboxFull
from centinela_predictor.gateway.readiness import Readiness
from centinela_predictor.gateway.requests import BODY_LIMIT, Parsed, PredictBatch, PredictRequest, RequestParser
from centinela_predictor.models.slot import ModelSlot
from centinela_predictor.models.slot import describe as describe_models

Parse = Callable[[bytes, datetime], list[Parsed]]


@dataclass(frozen=True)
class GatewayApi:
    """The endpoints.

    Args:
        deadline_s: Longest time of a request.
        keys: Who may ask for verdicts.
    """

    gateway: Gateway
    parser: RequestParser
    slot: ModelSlot
    clock: Clock
    deadline_s: float
    keys: ApiKeys
    in_flight: InFlight

    async def predict(self, request: Request) -> Response:
        started = self.clock.monotonic()
        [answer] = await self._answer(request, self.parser.one)
        metrics.PREDICTION_LATENCY.observe(self.clock.monotonic() - started)
        return json_response(answer)

    async def predict_batch(self, request: Request) -> Response:
        return json_response(Answers(await self._answer(request, self.parser.many)))

    async def model(self) -> Response:
        return json_response(describe_models(self.slot.pair))

    async def _answer(self, request: Request, parse: Parse) -> list[Answer]:
        self.keys.require(request.headers.get("authorization"), "scorer")
        with self.in_flight.one():
            deadline = Deadline(self.clock, request.headers.get(TIMEOUT_HEADER), self.deadline_s)
            parsed = parse(await deadline.body(read_body(request, BODY_LIMIT)), self.clock.now())
            requests = [transaction for transaction, _ in parsed]
            future = self.gateway.submit(requests, request.state.traceparent, request.state.request_id, deadline)
            answers = await deadline.answer(asyncio.wrap_future(future))
        return [_with_unknown(answer, unknown) for answer, (_, unknown) in zip(answers, parsed, strict=True)]


def build_app(
    gateway: Gateway,
    parser: RequestParser,
    slot: ModelSlot,
    readiness: Readiness,
    clock: Clock,
    *,
    deadline_s: float,
    in_flight: int,
    keys: ApiKeys,
) -> FastAPI:
    """The application; its life does not manage *gateway*'s threads.

    Args:
        deadline_s: Longest time of a request.
        in_flight: Most requests at once.
        keys: Who may ask for verdicts.
    """
    api = GatewayApi(gateway, parser, slot, clock, deadline_s, keys, InFlight(in_flight, "gateway"))
    app = FastAPI(
        title="Centinela gateway",
        description=(
            "Decides on card transactions. Every verdict is in the log, or on disk on its way there, before it is"
            " answered."
        ),
        version="1",
        redoc_url=None,
        exception_handlers=RefusalResponses(_count, _unavailable, null_field=True).handlers(),
    )
    app.add_middleware(CorrelationMiddleware)
    app.add_api_route("/predict", api.predict, methods=["POST"], **openapi.PREDICT)
    app.add_api_route("/predict/batch", api.predict_batch, methods=["POST"], **openapi.PREDICT_BATCH)
    app.add_api_route("/model", api.model, summary="The models in service")
    app.include_router(
        ops_routes(
            lambda: readiness.health(slot.loaded),
            readiness.ready,
            ready_when="Whether a verified model serves on features that are up to date",
        )
    )
    describe(app, [PredictRequest, PredictBatch, Answer, Answers], amend=openapi.amend)
    return app


def _with_unknown(answer: Answer, fields: tuple[str, ...]) -> Answer:
    """*answer* to a body with *fields* that mean nothing here."""
    count_unknown("gateway", fields)
    return msgspec.structs.replace(answer, unknown_fields=fields) if fields else answer


def _count(_request: Request, refused: RequestRefused) -> None:
    metrics.GATEWAY_REFUSED.labels(refused.error).inc()


def _unavailable(error: DependencyUnavailable) -> RequestRefused:
    if isinstance(error, NotReady):
        return RequestRefused(503, "not_ready", str(error), headers=retry_after(RETRY_AFTER_S))
    if isinstance(error, OutboxFull):
        return RequestRefused(503, "outbox_full", str(error), headers=retry_after(RETRY_AFTER_S))
    return exception_handlers.unavailable(error)
