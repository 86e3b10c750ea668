"""The servers that the whole test run stands on are the real ones."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable

from centinela.settings import Settings
from centinela_local.broker import embedded as local_broker


def test_the_broker_of_the_run_answers_with_its_metadata(broker: str) -> None:
    assert local_broker.answers(broker)


def test_a_port_without_a_broker_does_not_answer(mlflow_server: str) -> None:
    assert not local_broker.answers(mlflow_server.removeprefix("http://"))


def test_the_mlflow_of_the_run_is_healthy(mlflow_server: str) -> None:
    with urllib.request.urlopen(f"{mlflow_server}/version") as response:
        assert response.read().decode().startswith("3.")


def test_settings_point_at_the_servers_of_the_run(
    make_settings: Callable[..., Settings], broker: str, mlflow_server: str
) -> None:
    settings = make_settings(mlflow=True)
    assert (settings.kafka_bootstrap_servers, settings.mlflow_tracking_uri) == (broker, mlflow_server)
