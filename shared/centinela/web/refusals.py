"""A request that is not served: the exception that says why, and the body that answers it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from centinela.errors import CentinelaError


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request was refused. ``field`` is the path of the invalid field, ``index`` its place in a batch."""

    error: str
    detail: str
    field: str | msgspec.UnsetType | None = msgspec.UNSET
    index: int | msgspec.UnsetType = msgspec.UNSET


class RequestRefused(CentinelaError):
    """A request that cannot be served as it is.

    Args:
        status: HTTP status, 4xx or 5xx.
        error: A constant in snake_case.
        detail: What is wrong, for a person.
        field: Path of the invalid field (``amount``, ``attributes.v3``); None where it is the whole request.
        index: The item of a batch, from 0; None for a single object.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        error: str,
        detail: str,
        *,
        field: str | None = None,
        index: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{error}: {field}: {detail}" if field else f"{error}: {detail}")
        self.status = status
        self.error = error
        self.detail = detail
        self.field = field
        self.index = index
        self.headers = dict(headers or {})


def retry_after(seconds: int) -> dict[str, str]:
    """The header that asks a client to send the same request again after *seconds*."""
    return {"Retry-After": str(seconds)}
