"""The ingest API on a fake broker."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from centinela.testing.kafka import FakeBroker
from tests.support.ingest_api import build


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def client(broker: FakeBroker) -> TestClient:
    return build(broker)[0]
