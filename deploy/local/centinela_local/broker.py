"""One Kafka node in KRaft mode (broker and controller in one process), from the cached jars."""

from __future__ import annotations

import base64
import socket
import struct
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from centinela_local.errors import StartFailed, ToolMissing
from centinela_local.jars import INSTALL_HINT, ensure_jars, find_java
from centinela_local.ports import LOOPBACK, free_port
from centinela_local.process import BackgroundProcess

_METADATA, _VERSION, _CORRELATION = 3, 1, 7


@dataclass(frozen=True)
class Node:
    """Where the node keeps its files and listens.

    Args:
        folder: Holds ``server.properties`` and the log segments.
        port: Clients' listener, on the loopback interface.
        controller_port: The KRaft controller's listener, likewise.
    """

    folder: Path
    port: int
    controller_port: int
    heap_mb: int = 512

    @property
    def bootstrap_servers(self) -> str:
        return f"{LOOPBACK}:{self.port}"


def server_properties(node: Node) -> str:
    """The node's configuration: one replica of everything, few internal partitions, no topic created by accident."""
    return "\n".join(f"{key}={value}" for key, value in {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{node.controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{node.port},CONTROLLER://{LOOPBACK}:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{node.port}",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": (node.folder / "data").resolve(),
        "auto.create.topics.enable": "false",
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "controlled.shutdown.enable": "false",
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 4,
    }.items()) + "\n"


def broker_command(node: Node) -> list[str]:
    """Write the configuration, format the storage where it is new, and give the command that runs the node.

    Raises:
        ToolMissing: No JVM, or no Maven to fetch the jars on first use.
        StartFailed: Maven or the formatting failed.
    """
    java = find_java()
    if java is None:
        raise ToolMissing(f"no java found to run the Kafka broker: {INSTALL_HINT}")
    classpath = f"{ensure_jars()}/*"
    node.folder.mkdir(parents=True, exist_ok=True)
    properties = node.folder / "server.properties"
    properties.write_text(server_properties(node))
    if not (node.folder / "data" / "meta.properties").exists():
        format_ = [java, "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *_LOGGING, "-cp", classpath, "kafka.tools.StorageTool",
                   "format", f"--cluster-id={_cluster_id()}", "--config", str(properties)]
        done = subprocess.run(format_, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StartFailed(f"Kafka's storage could not be formatted:\n{(done.stdout + done.stderr).strip()[-2000:]}")
    return [java, f"-Xms{node.heap_mb // 2}m", f"-Xmx{node.heap_mb}m", "-XX:+UseSerialGC", "-Djava.awt.headless=true",
            "-Djava.net.preferIPv4Stack=true", *_LOGGING, "-cp", classpath, "kafka.Kafka", str(properties)]


def answers(bootstrap_servers: str, timeout_s: float = 2.0) -> bool:
    """Whether a broker at the first of *bootstrap_servers* (no TLS) names at least one live broker in its metadata."""
    host, _, port = bootstrap_servers.split(",")[0].rpartition(":")
    no_topics = struct.pack(">i", 0)
    request = struct.pack(">hhih", _METADATA, _VERSION, _CORRELATION, -1) + no_topics
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as stream:
                _, correlation, brokers = struct.unpack(">iii", stream.read(12))
    except (OSError, struct.error):
        return False
    return bool(correlation == _CORRELATION and brokers > 0)


class TemporaryBroker:
    """A broker on free ports, for tests: started by ``start``, its processes gone after ``stop``.

    Args:
        folder: An empty folder, which the caller removes.
    """

    def __init__(self, folder: Path) -> None:
        self._node = Node(folder, free_port(), free_port(), heap_mb=384)
        self._process: BackgroundProcess | None = None

    @property
    def bootstrap_servers(self) -> str:
        return self._node.bootstrap_servers

    def start(self) -> None:
        """Start, or start again on the same data, and wait until it answers."""
        command = broker_command(self._node)
        self._process = BackgroundProcess("Kafka", command, log=self._node.folder / "kafka.log",
                                          answers=lambda: answers(self.bootstrap_servers))
        self._process.start()

    def stop(self, grace_s: float = 0.0) -> None:
        """End it, at once by default. Idempotent."""
        if self._process is not None:
            self._process.stop(grace_s)


_LOGGING = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "-Dorg.slf4j.simpleLogger.showThreadName=false")


def _cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
