"""What an HTTP application answers where a request is refused or fails: the same in every service."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from fastapi import Request, Response
from starlette.exceptions import HTTPException

from centinela.errors import DependencyUnavailable
from centinela.security.keys import Denied
from centinela.web.backpressure import RETRY_AFTER_S
from centinela.web.refusals import Refusal, RequestRefused, retry_after
from centinela.web.responses import json_response

ExceptionHandler = Callable[[Request, Any], Coroutine[Any, Any, Response]]
_log = structlog.get_logger(__name__)


def unavailable(error: DependencyUnavailable) -> RequestRefused:
    """The refusal of a request that needs a dependency which does not answer."""
    return RequestRefused(503, "unavailable", str(error), headers=retry_after(RETRY_AFTER_S))


@dataclass(frozen=True)
class RefusalResponses:
    """Turns exceptions into responses.

    Args:
        count: Counts a refusal in the metrics.
        unavailable: The refusal where a dependency does not answer.
        null_field: Answer ``"field": null`` where no field is at fault; otherwise ``field`` is left out.
    """

    count: Callable[[Request, RequestRefused], None]
    unavailable: Callable[[DependencyUnavailable], RequestRefused] = unavailable
    null_field: bool = False

    def handlers(self) -> dict[int | type[Exception], ExceptionHandler]:
        """For ``FastAPI(exception_handlers=...)``."""
        return {
            RequestRefused: self.refused,
            Denied: self.denied,
            DependencyUnavailable: self.dependency_unavailable,
            HTTPException: self.http_error,
            Exception: self.failed,
        }

    async def refused(self, request: Request, error: RequestRefused) -> Response:
        _log.warning(
            "request.refused",
            path=request.url.path,
            status=error.status,
            error=error.error,
            field=error.field,
            index=error.index,
        )
        return self._respond(request, error)

    async def denied(self, request: Request, error: Denied) -> Response:
        _log.warning("request.denied", path=request.url.path, status=error.status, error=error.error)
        return self._respond(request, RequestRefused(error.status, error.error, error.detail, headers=error.headers))

    async def dependency_unavailable(self, request: Request, error: DependencyUnavailable) -> Response:
        refusal = self.unavailable(error)
        _log.warning(
            "request.refused", path=request.url.path, status=refusal.status, error=refusal.error, detail=str(error)
        )
        return self._respond(request, refusal)

    async def http_error(self, request: Request, error: HTTPException) -> Response:
        refusal = RequestRefused(error.status_code, "http_error", str(error.detail), headers=error.headers)
        return self._respond(request, refusal)

    async def failed(self, request: Request, error: Exception) -> Response:
        _log.error("request.failed", path=request.url.path, exc_info=error)
        return self._respond(request, RequestRefused(500, "internal", "the request failed; the log has the reason"))

    def _respond(self, request: Request, error: RequestRefused) -> Response:
        self.count(request, error)
        no_field = None if self.null_field else msgspec.UNSET
        refusal = Refusal(
            error=error.error,
            detail=error.detail,
            field=no_field if error.field is None else error.field,
            index=msgspec.UNSET if error.index is None else error.index,
        )
        response = json_response(refusal, error.status)
        response.headers.update(error.headers)
        return response
