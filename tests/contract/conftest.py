"""The Kafka port's contract suite runs on the fake and on both real adapters: whatever passes it may stand in for the
others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.kafka_kit import FakeKit, Kit, RealKit, kit_of


@pytest.fixture(scope="module", params=["fake", "kafka-python", "confluent"])
def kafka_client(request: pytest.FixtureRequest) -> Iterator[RealKit | None]:
    """A real client's kit for the tests of a file; None for the fake's."""
    if request.param == "fake":
        yield None
        return
    real = kit_of(request.param, request.getfixturevalue("broker"))
    yield real
    real.close()


@pytest.fixture
def kit(kafka_client: RealKit | None) -> Iterator[Kit]:
    """One client's way to make everything, on one broker; all is closed after the test."""
    if kafka_client is None:
        yield FakeKit()
        return
    yield kafka_client
    kafka_client.after_test()
