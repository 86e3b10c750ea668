"""Both APIs against their own OpenAPI documents, and against malicious clients."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from unittest import SkipTest

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import ASGITransport, AsyncClient
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from centinela.codec import Decoder
from centinela.errors import InvalidRecord
from centinela.events import LabelReported, TransactionReceived
from centinela.testing.kafka import FakeBroker
from tests.support.both_apis import NOW, gateway_app, ingest_app
from tests.support.mutations import ODD_VALUES, Mutator, corpus

EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
HOLDS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
TYPES: dict[str, Decoder[Any]] = {"transactions": Decoder(TransactionReceived), "labels": Decoder(LabelReported)}


@pytest.fixture(scope="module")
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture(scope="module")
def ingest(broker: FakeBroker) -> FastAPI:
    return ingest_app(broker)


@pytest.fixture(scope="module")
def gateway(broker: FakeBroker) -> Iterator[FastAPI]:
    with gateway_app(broker) as app:
        yield app


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("service", ["ingest", "gateway"])
def test_an_api_keeps_to_its_openapi_document(
    service: str, mode: GenerationMode, request: pytest.FixtureRequest
) -> None:
    """Requests that the document allows and that it does not; answers as it says, to all of them."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", request.getfixturevalue(service))
    operations = []
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operations.append(result.ok())
    assert {operation.path for operation in operations} >= {path for owner, path in POSTS if owner == service}
    for operation in operations:
        try:
            cases = operation.as_strategy(generation_mode=mode)

            @EXAMPLES
            @given(cases)
            def keeps(case: Any) -> None:
                case.call_and_validate(checks=HOLDS)

            keeps()
        except (SkipTest, Unsatisfiable):  # no such request can be made: nothing in it can be invalid
            assert mode is GenerationMode.NEGATIVE


POSTS = [("ingest", "/transactions"), ("ingest", "/labels"), ("gateway", "/predict"), ("gateway", "/predict/batch")]


@pytest.fixture(params=POSTS, ids=lambda post: post[1])
def post(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Posts to one of the paths that write; an exception of the application fails the test."""
    service, path = request.param
    client = TestClient(request.getfixturevalue(service))
    return lambda content, **headers: client.post(
        path, content=content, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def test_any_body_is_taken_or_refused_as_documented(post: Callable[..., Any], broker: FakeBroker) -> None:
    for body in [*corpus(NOW), *ODD_VALUES, *Mutator(corpus(NOW), 11).many(400)]:
        response = post(body)
        assert response.status_code in {200, 202, 400, 409, 413, 422}, (response.status_code, body)
        if response.status_code >= 400:
            refused = json.loads(response.content)
            assert isinstance(refused["error"], str)
            assert isinstance(refused["detail"], str)
    for topic, decoder in TYPES.items():
        for record in broker.records(topic):
            assert not isinstance(decoder.decode_many([record.value])[0], InvalidRecord)


def test_compressed_bodies_are_not_unpacked(post: Callable[..., Any]) -> None:
    """So a small body cannot become a large one: it is read as it is, and is not JSON."""
    bomb = gzip.compress(b'{"amount": 1, "more": "' + b" " * 50_000_000 + b'"}')
    assert len(bomb) < 100_000
    for encoding in ("gzip", "deflate", "br", "zstd"):
        assert post(bomb, content_encoding=encoding).status_code == 400


@pytest.mark.parametrize("depth", [500, 5_000, 200_000])
@pytest.mark.parametrize("shape", [b"[", b'{"a":', b'{"attributes":', b'[{"attributes":'])
def test_deep_json_is_refused(post: Callable[..., Any], shape: bytes, depth: int) -> None:
    assert post((shape * depth)[:900_000]).status_code in {400, 422}


@pytest.mark.parametrize("length", ["-1", "²", "1e9", "9" * 5_000, "x", " "])
def test_an_invalid_length_is_ignored(ingest: FastAPI, length: str) -> None:
    response = TestClient(ingest).post(
        "/transactions", content=b"{}", headers={"content-length": length.encode("latin-1")}
    )
    assert response.status_code in {413, 422}


async def test_a_body_without_a_length_is_read_to_the_limit_only(ingest: FastAPI, gateway: FastAPI) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65_536
            yield b" " * 65_536

    for app, path in (
        (ingest, "/transactions"),
        (ingest, "/labels"),
        (gateway, "/predict"),
        (gateway, "/predict/batch"),
    ):
        sent = 0
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
            response = await client.post(path, content=endless())
        assert response.status_code == 413
        assert sent < 2_000_000
