"""Kafka nodes in KRaft mode (broker and controller in one process), from the cached jars."""

from __future__ import annotations

import base64
import socket
import struct
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from centinela.topics import OFFSETS_RETENTION_MINUTES
from centinela_local.broker.jars import INSTALL_HINT, ensure_jars, find_java
from centinela_local.errors import StartFailed, ToolMissing
from centinela_local.processes.ports import LOOPBACK

_METADATA, _VERSION, _CORRELATION = 3, 1, 7


@dataclass(frozen=True)
class Node:
    """Where a node keeps its files and listens.

    Args:
        folder: Holds ``server.properties`` and the log segments.
        port: Clients' listener, on the loopback interface.
        controller_port: The KRaft controller's listener, also on the loopback interface.
        number: Identifies the node within a cluster.
        controllers: The controllers' ports of all nodes, by number from 1; empty: a single node.
        cluster: Id of the cluster, the same for all of its nodes.
        session_ms: After this long without a heartbeat its partitions get other leaders, and only then may it come
            back after a kill.
    """

    folder: Path
    port: int
    controller_port: int
    heap_mb: int = 512
    number: int = 1
    controllers: tuple[int, ...] = ()
    cluster: str | None = None
    session_ms: int = 9_000

    @property
    def bootstrap_servers(self) -> str:
        return f"{LOOPBACK}:{self.port}"


def server_properties(node: Node) -> str:
    """The node's configuration: as many replicas of what is internal as there are nodes, few internal partitions, no
    topic created by accident."""
    controllers = node.controllers or (node.controller_port,)
    replicas = len(controllers)
    in_sync = 2 if replicas >= 3 else 1
    return (
        "\n".join(
            f"{key}={value}"
            for key, value in {
                "process.roles": "broker,controller",
                "node.id": node.number,
                "controller.quorum.voters": ",".join(f"{n}@{LOOPBACK}:{port}" for n, port in enumerate(controllers, 1)),
                "controller.listener.names": "CONTROLLER",
                "listeners": f"PLAINTEXT://{LOOPBACK}:{node.port},CONTROLLER://{LOOPBACK}:{node.controller_port}",
                "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{node.port}",
                "inter.broker.listener.name": "PLAINTEXT",
                "log.dirs": (node.folder / "data").resolve(),
                "auto.create.topics.enable": "false",
                "default.replication.factor": replicas,
                "min.insync.replicas": in_sync,
                "offsets.topic.replication.factor": replicas,
                "offsets.topic.num.partitions": 4,
                "offsets.retention.minutes": OFFSETS_RETENTION_MINUTES,
                "transaction.state.log.replication.factor": replicas,
                "transaction.state.log.min.isr": in_sync,
                "transaction.state.log.num.partitions": 4,
                "share.coordinator.state.topic.replication.factor": replicas,
                "share.coordinator.state.topic.min.isr": in_sync,
                "group.initial.rebalance.delay.ms": 0,
                "group.min.session.timeout.ms": 1000,
                "controlled.shutdown.enable": "false",
                "broker.session.timeout.ms": node.session_ms,
                "broker.heartbeat.interval.ms": min(2_000, node.session_ms // 6),
                "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
                "num.network.threads": 2,
                "num.io.threads": 4,
                "background.threads": 4,
            }.items()
        )
        + "\n"
    )


def broker_command(node: Node) -> list[str]:
    """Write the configuration, format the storage where it is new, and give the command that runs the node.

    Raises:
        ToolMissing: No JVM, or no Maven to fetch the jars on first use.
        StartFailed: Maven or the formatting failed.
    """
    java = find_java()
    if java is None:
        raise ToolMissing(f"java is needed to run the Kafka broker: {INSTALL_HINT}")
    classpath = f"{ensure_jars()}/*"
    node.folder.mkdir(parents=True, exist_ok=True)
    properties = node.folder / "server.properties"
    properties.write_text(server_properties(node))
    if not (node.folder / "data" / "meta.properties").exists():
        format_ = [
            java,
            "-Xmx128m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            *_LOGGING,
            "-cp",
            classpath,
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={node.cluster or new_cluster_id()}",
            "--config",
            str(properties),
        ]
        done = subprocess.run(format_, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StartFailed(f"Kafka's storage could not be formatted:\n{(done.stdout + done.stderr).strip()[-2000:]}")
    return [
        java,
        f"-Xms{node.heap_mb // 2}m",
        f"-Xmx{node.heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",  # a third to a half of the CPU, to start and for the first million records
        "-Djava.awt.headless=true",
        "-Djava.net.preferIPv4Stack=true",
        *_LOGGING,
        "-cp",
        classpath,
        "kafka.Kafka",
        str(properties),
    ]


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


_LOGGING = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "-Dorg.slf4j.simpleLogger.showThreadName=false",
)


def new_cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
