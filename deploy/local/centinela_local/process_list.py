"""The process list of the local stack: what runs, on which port, with which environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from centinela_local.mlflow_server import MLFLOW_ENVIRONMENT, mlflow_command
from centinela_local.paths import CHECKOUT, Paths
from centinela_local.processes.ports import LOOPBACK
from centinela_local.processes.spec import Process
from centinela_local.settings import LocalSettings

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def kafka_process(settings: LocalSettings, command: Sequence[str]) -> Process:
    """The embedded broker, which *command* runs."""
    return Process("kafka", tuple(command), settings.kafka_port, "kafka_port", ready_path=None)


def mlflow_process(settings: LocalSettings, paths: Paths) -> Process:
    """The MLflow server."""
    return Process(
        "mlflow",
        tuple(mlflow_command(paths.mlflow, settings.mlflow_port)),
        settings.mlflow_port,
        "mlflow_port",
        ready_path="/health",
        environment=MLFLOW_ENVIRONMENT,
        stop_wait_s=5,
    )


def service_processes(settings: LocalSettings) -> list[Process]:
    """The seven processes of the five services, and the Feast role where it is asked for."""

    def service(
        name: str, port_field: str, module: str, *role: str, nice: int = 0, environment: dict[str, str] = _ONE_THREAD
    ) -> Process:
        return Process(
            name,
            (sys.executable, "-m", module, *role),
            getattr(settings, port_field),
            port_field,
            nice=nice,
            environment=environment,
        )

    processes = [
        service("ingest", "ingest_port", "centinela_ingest"),
        service("gateway", "gateway_port", "centinela_predictor", "gateway"),
        service("stream", "predictor_port", "centinela_predictor", "stream"),
        service("drift", "drift_port", "centinela_drift"),
        service("trainer", "trainer_port", "centinela_trainer", "serve", nice=5, environment={}),
        service("archive", "archive_port", "centinela_trainer", "archive", nice=1),
        service("registry-watcher", "watcher_port", "centinela_registry_watcher"),
    ]
    return (
        [*processes, service("feast", "feast_port", "centinela_predictor", "feast", nice=5)]
        if settings.feast
        else processes
    )


def shared_environment(settings: LocalSettings, paths: Paths, bootstrap_servers: str) -> dict[str, str]:
    """The settings that the stack decides, which every process gets in addition to the caller's environment."""
    ports = {
        f"CENTINELA_{name.upper()}": str(getattr(settings, name))
        for name in LocalSettings.model_fields
        if name.endswith("_port")
    }
    data_dir = settings.data_dir if "data_dir" in settings.model_fields_set else paths.root / "data"
    files = {
        "CENTINELA_FEATURES_FILE": CHECKOUT / "features.yaml",
        "CENTINELA_FEAST_REPO": CHECKOUT / "deploy" / "feast",
        "CENTINELA_PARAMS_PATH": CHECKOUT / "params.yaml",
    }
    paths_of_checkout = {name: str(path) for name, path in files.items() if name not in os.environ}
    return (
        ports
        | paths_of_checkout
        | {
            "CENTINELA_KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "CENTINELA_MLFLOW_TRACKING_URI": f"http://{LOOPBACK}:{settings.mlflow_port}",
            "CENTINELA_DATA_DIR": str(data_dir.expanduser().resolve()),
            "CENTINELA_LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
        }
    )
