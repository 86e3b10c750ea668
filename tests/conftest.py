"""Fixtures shared by all tests: a real Kafka and a real MLflow, started when first asked for, one of each for the
run."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest
import yaml
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling

from centinela.settings import Settings
from centinela_local.broker.choice import choose_broker, docker_answers
from centinela_local.broker.embedded import answers
from centinela_local.broker.jars import can_run_broker
from centinela_local.paths import CHECKOUT
from centinela_local.processes.ports import free_port
from centinela_local.processes.startup import StartupWait
from centinela_local.testing.temporary_kafka import TemporaryBroker
from centinela_local.testing.temporary_mlflow import TemporaryMlflow

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Before scikit-learn is imported: its threads spin, and on a busy machine a small fit then takes minutes."""

hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

_FOLDERS = ("e2e", "faults", "integration", "contract", "unit", "field")
"""In the order in which they run: what takes longest starts first, and small tests fill the gaps at the end."""
_GROUPS = {
    "a whole stack after another, beside the demo's": (
        "tests/e2e/test_own_data_to_verdicts.py",
        "tests/faults/test_short_fault_run.py",
    ),
    "one MLflow server": (
        "tests/integration/test_trainer_",
        "tests/integration/test_processes_end.py",
        "tests/integration/test_local_stack.py",
        "tests/integration/test_registry_watcher.py",
        "tests/contract/test_registry_port.py",
    ),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests by folder, and in each folder the groups first."""

    def order(item: pytest.Item) -> tuple[int, bool]:
        file = item.path.relative_to(CHECKOUT).as_posix()
        return _FOLDERS.index(file.split("/")[1]), _group(file) is None

    items.sort(key=order)


def _group(file: str) -> str | None:
    """The group of *file*, as seen from the checkout's root."""
    return next((group for group, files in _GROUPS.items() if file.startswith(files)), None)


class _ByServer(LoadScopeScheduling):
    """Keeps the tests of a file, and the files that share a costly server, in one parallel worker.

    A scheduler of our own because ``--dist loadgroup`` of pytest-xdist 3.8 puts no test in its group under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return _group(file) or file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByServer:
    """The scheduler of ``make test`` and ``make unit``."""
    return _ByServer(config, log)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a real Kafka: the one that ``KAFKA_BOOTSTRAP_SERVERS`` names, else a local one, else one in
    Docker."""
    running = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
    can_embed = can_run_broker()
    match choose_broker(
        external=bool(running), can_embed=can_embed, docker_answers=not running and not can_embed and docker_answers()
    ):
        case "external":
            yield running
        case "docker":
            with _broker_in_docker() as servers:
                yield servers
        case "embedded":
            server = TemporaryBroker(tmp_path_factory.mktemp("kafka"))
            server.start()
            try:
                yield server.bootstrap_servers
            finally:
                server.stop()


@contextmanager
def _broker_in_docker() -> Iterator[str]:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network

    service = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())["services"]["kafka"]
    port = free_port()
    container = DockerContainer(service["image"]).with_bind_ports(9092, port)
    for name, value in service["environment"].items():
        container.with_env(
            name,
            str(value)
            .replace("INTERNAL://kafka:", "INTERNAL://localhost:")
            .replace("${CENTINELA_KAFKA_PORT:-9092}", str(port)),
        )
    with Network() as network, container.with_network(network):
        servers = f"127.0.0.1:{port}"
        wait = StartupWait(container.get_logs)
        while not answers(servers):
            if (problem := wait.problem()) is not None:
                log = container.get_logs()[0].decode(errors="replace")
                raise TimeoutError(f"Kafka in Docker {problem}:\n{log[-2000:]}")
            time.sleep(0.2)
        yield servers


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
    """``make_settings(kind=Settings, kafka=True, mlflow=False, **fields)``: settings of *kind* on the run's real
    servers.

    Data go to the test's own folder; ports are free ones (0).
    """

    def make(
        kind: type[Settings] = Settings, *, kafka: bool = True, mlflow: bool = False, **fields: object
    ) -> Settings:
        values: dict[str, object] = {"data_dir": tmp_path / "data", "log_format": "json"}
        values |= {name: 0 for name in kind.model_fields if name.endswith("_port")}
        if kafka:
            values["kafka_bootstrap_servers"] = request.getfixturevalue("broker")
        if mlflow:
            values["mlflow_tracking_uri"] = request.getfixturevalue("mlflow_server")
        return kind(**(values | fields))  # type: ignore[arg-type]

    return make
