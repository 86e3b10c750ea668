"""What is broken: brokers, MLflow and all services, two predictors, each its own process under the product's own
supervisor."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient  # noqa: TID251 - registers versions as somebody does who has nothing but MLflow
from rich.console import Console

from centinela.consuming.table_reader import open_table
from centinela.features.layout import FeatureLayout
from centinela.groups import STREAM
from centinela.kafka.connect import consumer, topic_admin
from centinela.model.registry import Registry
from centinela.settings import Settings
from centinela_local.process_list import service_processes
from centinela_local.processes.spec import Process
from centinela_local.processes.startup import LIMIT_S, StartupWait
from centinela_local.processes.supervisor import Supervisor
from centinela_local.readiness.checks import ask
from centinela_local.settings import LocalSettings
from centinela_local.stack import Stack
from centinela_local.testing.temporary_kafka import TemporaryCluster
from tests.support.faultrun.workload import ATTRIBUTES
from tests.support.served_models import small_bundle

PORTS = 24
PREDICTORS = ("stream", "stream-1")
_MOUNT_MB = {"state": 512, "archive": 1024}
_EXITED = re.compile(r"exited: (\S+) \((?:exit status |terminated by )([^;]+);")
_PARAMS = """
seed: 7
train:
  {model_kind: hgb, window_days: 3, min_rows: 200, min_frauds: 5, refit: false,
   hgb: {max_iter: 10, learning_rate: 0.1, max_leaf_nodes: 7, l2_regularization: 1.0}}
evaluate: {test_days: 1, folds: 1}
gate:
  {min_average_precision: 0.0, min_gain: -1.0, confidence: 0.0, min_frauds: 1,
   min_alert_rate: 0.0, max_alert_rate: 1.0}
register: {auto_promote: false}
skew: {sample: 100}
"""


class FaultStack:
    """Everything that runs, on ports and in a folder of its own.

    Args:
        folder: An empty folder, which the caller removes after ``close``.
        ports: At least 20 that stay free.
        mounts: Give feature state and archive small file systems of their own, which can be filled (root only).
    """

    def __init__(self, folder: Path, ports: list[int], brokers: int, *, mounts: bool) -> None:
        self.folder = folder
        self._mounts = mounts
        self.layout = FeatureLayout(ATTRIBUTES)
        self.cluster = TemporaryCluster(folder, ports[: 2 * brokers])
        names = [name for name in LocalSettings.model_fields if name.endswith("_port")]
        given: dict[str, Any] = dict(zip(names, ports[2 * brokers :], strict=False))
        self.extra_ports = ports[2 * brokers + len(names) :]
        second = self.extra_ports.pop(0)
        self.data = folder / "data"
        settings = LocalSettings(
            local_dir=folder,
            kafka_bootstrap_servers=self.cluster.bootstrap_servers,
            partitions=4,
            replication_factor=min(3, brokers),
            **given,
        )
        services = service_processes(settings)
        stream = next(process for process in services if process.name == "stream")
        services.append(
            Process(
                "stream-1",
                stream.command,
                second,
                "predictor_port",
                environment={**stream.environment, "CENTINELA_SLOT": "1", "CENTINELA_PREDICTOR_PORT": str(second)},
            )
        )
        self.urls = {process.name: process.url for process in services}
        self._settings = settings
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "params.yaml").write_text(_PARAMS)
        environment = {
            "CENTINELA_ATTRIBUTES": json.dumps(ATTRIBUTES),
            "CENTINELA_SNAPSHOT_INTERVAL_S": "2",
            "CENTINELA_GATE_PATIENCE_S": "600",
            "CENTINELA_ARCHIVE_FLUSH_S": "2",
            "CENTINELA_DRIFT_EVIDENTLY": "false",
            "CENTINELA_DRIFT_SNAPSHOT_SECONDS": "3",
            "CENTINELA_PARAMS_PATH": str(folder / "params.yaml"),
            "CENTINELA_LOG_LEVEL": "INFO",
        }
        self._stack = Stack(
            settings,
            Console(quiet=True),
            create_topics=_create_topics,
            model_exists=lambda _: False,
            services=services,
            environment=environment,
        )
        paths = self._stack.paths
        self.log_dir = paths.log
        self._listing = paths.processes
        self.supervisor = Supervisor(paths.supervisor_config, paths.socket())
        self.versions: list[str] = []
        """Sound versions in the registry, and when the first of them was promoted."""
        self.promoted_at: dict[str, float] = {}
        self._strangers: list[subprocess.Popen[bytes]] = []

    @property
    def servers(self) -> str:
        return self.cluster.bootstrap_servers

    @property
    def connection(self) -> Settings:
        """Settings of a command that runs next to the stack."""
        return self._stack.connection

    def start(self) -> None:
        """Start everything, with a first champion, and wait until all is ready."""
        for name, size in _MOUNT_MB.items() if self._mounts else ():
            (self.data / name).mkdir(parents=True)
            subprocess.run(
                [_tool("mount"), "-t", "tmpfs", "-o", f"size={size}m", "faults", str(self.data / name)], check=True
            )
        self.cluster.start()
        self._stack.up(LIMIT_S)
        self._registry = Registry(self.connection)
        for _ in range(3):
            self.versions.append(self.register())
        self.promote(self.versions[0])
        self.await_ready()

    def close(self) -> None:
        """Stop everything."""
        for stranger in self._strangers:
            stranger.kill()
            stranger.wait()
        self._stack.down()
        self.cluster.stop()
        for name in _MOUNT_MB if self._mounts else ():
            subprocess.run([_tool("umount"), "-l", str(self.data / name)], check=False)

    def await_ready(self) -> None:
        """Wait until ``/ready`` of every service answers 200.

        Raises:
            TimeoutError: The stack makes no progress, or takes too long.
        """
        wait = StartupWait(self._stack.activity)
        while unready := self.unready():
            if (problem := wait.problem()) is not None:
                raise TimeoutError(f"the stack {problem}; not ready: {unready}")
            time.sleep(0.2)

    def lost_brokers(self) -> list[int]:
        """Numbers of the brokers that do not run, from 1. Between faults every one should."""
        return [number for number, broker in enumerate(self.cluster.brokers, 1) if not broker.running]

    def unready(self) -> list[str]:
        """The services that are not ready."""
        return [
            name for name, url in self.urls.items() if (answer := ask(f"{url}/ready")) is None or answer.status != 200
        ]

    def pid(self, name: str) -> int:
        """Its process now; 0 where none runs, or one waits before its next start."""
        state = self.supervisor.states()[name]
        return 0 if state.state == "BACKOFF" else state.pid

    def log(self, name: str) -> str:
        """What *name* has logged so far."""
        return (self.log_dir / f"{name}.log").read_text(errors="replace")

    def register(self, damage: bool = False) -> str:
        """Put another version into the registry, on request one whose model file was changed after it was signed for;
        its number."""
        number = 1 + len(list(self.folder.glob("bundle-*")))
        bundle = small_bundle(self.folder / f"bundle-{number}", self.layout, version=str(number), depth=1 + number % 3)
        if damage:
            flip_a_bit(max(bundle.glob("model.*"), key=lambda path: path.stat().st_size))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = MlflowClient(self.connection.mlflow_tracking_uri)
            if not client.search_registered_models():
                client.create_registered_model("FraudDetector")
            experiment = client.get_experiment_by_name("faults")
            run = client.create_run(experiment.experiment_id if experiment else client.create_experiment("faults"))
            client.log_artifacts(run.info.run_id, str(bundle), "bundle")
            return str(
                client.create_model_version("FraudDetector", f"{run.info.artifact_uri}/bundle", run.info.run_id).version
            )

    def promote(self, version: str) -> None:
        """Make *version* the champion."""
        self.promoted_at.setdefault(version, time.time())
        self._registry.promote(version)

    @property
    def champion(self) -> str | None:
        return self._registry.version_of("champion")

    def environment_of(self, name: str) -> tuple[list[str], dict[str, str]]:
        """Command and environment of a supervised process, for another one like it."""
        entry = json.loads(self._listing.read_text())[name]
        return entry["command"], {**os.environ, **entry["environment"]}

    def stranger(self, name: str, changes: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a process like *name* with *changes* to its environment, unsupervised; its log is next to the
        others'."""
        command, environment = self.environment_of(name)
        with (self.log_dir / "strangers.log").open("ab") as log:
            process = subprocess.Popen(
                command, env={**environment, **changes}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._strangers.append(process)
        return process

    def strangers_log(self) -> str:
        """What the unsupervised ones have logged."""
        log = self.log_dir / "strangers.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def supervisor_log(self) -> str:
        """Who was started, who ended and how."""
        return "".join(
            path.read_text(errors="replace")
            for path in (self.log_dir / "supervisord.log.1", self.log_dir / "supervisord.log")
            if path.exists()
        )

    def is_ready(self, port: int) -> bool:
        """Whether what listens on *port* is ready."""
        answer = ask(f"http://127.0.0.1:{port}/ready")
        return answer is not None and answer.status == 200

    def newest_snapshots(self) -> dict[int, int]:
        """Offset of the newest snapshot of each partition's state."""
        found: dict[int, int] = {}
        for path in (self.data / "state" / "partitions").glob("*/*/*.snapshot"):
            found[int(path.parent.name)] = max(found.get(int(path.parent.name), -1), int(path.stem))
        return found

    def committed(self) -> dict[int, int]:
        """What the predictors have committed of each partition."""
        reader = consumer(self.connection, group=STREAM.name, client="confluent")
        try:
            return {
                p.partition: offset or 0 for p, offset in reader.committed(reader.partitions_of("transactions")).items()
            }
        finally:
            reader.close()

    def exits(self) -> list[str]:
        """Every end of a service: its name and how."""
        return [f"{match[1]} {match[2]}" for match in _EXITED.finditer(self.supervisor_log())]

    def versions_by_request(self) -> dict[str, int]:
        """How many versions in the registry each training made."""
        requests = [dict(version.tags).get("request_id") for version in self._registry.versions(limit=1000)]
        return {request: requests.count(request) for request in requests if request is not None}

    def trainings_answered(self) -> set[str]:
        """Ids of the trainings that are answered."""
        reader = open_table(self.connection, ["model-events"])
        try:
            events = [json.loads(record.value) for record in reader.read_to_end() if record.value]
        finally:
            reader.close()
        return {event["request_id"] for event in events if event["type"] == "TrainingCompleted"}

    def keep_logs(self, destination: Path) -> None:
        """Copy all logs, for whoever looks for a cause."""
        shutil.copytree(self.log_dir, destination, dirs_exist_ok=True)
        for log in self.folder.glob("kafka-*/kafka.log"):
            shutil.copy(log, destination / f"{log.parent.name}.log")


def flip_a_bit(path: Path, at: float = 0.6) -> None:
    """Change one bit of the file."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 4
    path.write_bytes(bytes(data))


def _create_topics(settings: Settings) -> None:
    admin = topic_admin(settings)
    try:
        admin.create()
    finally:
        admin.close()


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(name)
    return found
