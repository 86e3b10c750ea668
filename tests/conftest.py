"""Fixtures shared by all tests: a real Kafka and a real MLflow, started when first asked for, one of each for the run."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from centinela.settings import Settings
from centinela_local.broker import TemporaryBroker
from centinela_local.mlflow_server import TemporaryMlflow


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a real Kafka; ``KAFKA_BOOTSTRAP_SERVERS`` names one that runs already."""
    running = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if running:
        yield running
        return
    server = TemporaryBroker(tmp_path_factory.mktemp("kafka"))
    server.start()
    try:
        yield server.bootstrap_servers
    finally:
        server.stop()


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a real MLflow server with an empty registry at the start of the run."""
    server = TemporaryMlflow(tmp_path_factory.mktemp("mlflow"))
    server.start()
    try:
        yield server.uri
    finally:
        server.stop()


@pytest.fixture
def unique() -> str:
    """A suffix no other test has: for topics, groups and model names on the shared servers."""
    return uuid.uuid4().hex[:10]


@pytest.fixture
def topic_names(unique: str) -> Callable[[str], str]:
    """``topic_names("x")``: a topic name like *x* that only this test uses."""
    return lambda name: f"{name}-{unique}"


@pytest.fixture
def make_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Settings]:
    """``make_settings(kind=Settings, kafka=True, mlflow=False, **fields)``: settings of *kind* on the run's real servers.

    Data go to the test's own folder; ports are free ones (0).
    """

    def make(kind: type[Settings] = Settings, *, kafka: bool = True, mlflow: bool = False, **fields: object) -> Settings:
        values: dict[str, object] = {"data_dir": tmp_path / "data", "log_format": "json"}
        values |= {name: 0 for name in kind.model_fields if name.endswith("_port")}
        if kafka:
            values["kafka_bootstrap_servers"] = request.getfixturevalue("broker")
        if mlflow:
            values["mlflow_tracking_uri"] = request.getfixturevalue("mlflow_server")
        return kind(**(values | fields))  # type: ignore[arg-type]

    return make
