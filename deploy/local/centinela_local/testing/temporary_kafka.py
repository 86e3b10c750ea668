"""A Kafka broker, or a cluster, for the time of a test or a benchmark."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from centinela_local.broker.embedded import Node, answers, broker_command, new_cluster_id
from centinela_local.processes.background import BackgroundProcess
from centinela_local.processes.ports import free_port


class TemporaryBroker:
    """A broker on free ports, for tests: started by ``start``, its processes gone after ``stop``.

    Args:
        folder: An empty folder, which the caller removes.
        node: Which node it is, where that is not left to chance.
    """

    def __init__(self, folder: Path, node: Node | None = None) -> None:
        self._node = node or Node(folder, free_port(), free_port(), heap_mb=384)
        self._process: BackgroundProcess | None = None

    @property
    def bootstrap_servers(self) -> str:
        return self._node.bootstrap_servers

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.running

    def launch(self) -> None:
        """Start, or start again on the same data, without waiting."""
        command = broker_command(self._node)
        self._process = BackgroundProcess(
            f"Kafka {self._node.number}",
            command,
            log=self._node.folder / "kafka.log",
            answers=lambda: answers(self.bootstrap_servers),
        )
        self._process.launch()

    def await_answer(self) -> None:
        """Wait until it answers.

        Raises:
            StartFailed: It ended, or makes no progress; it is stopped then.
        """
        if self._process is not None:
            self._process.await_answer()

    def start(self) -> None:
        """Start, or start again on the same data, and wait until it answers."""
        self.launch()
        self.await_answer()

    def pause(self) -> None:
        """Freeze it: its connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo ``pause``."""
        self._signal(signal.SIGCONT)

    def stop(self, grace_s: float = 0.0) -> None:
        """End it, at once by default. Idempotent."""
        if self._process is not None:
            self._process.stop(grace_s)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.signal(number)


class TemporaryCluster:
    """Brokers that replicate each other, for tests. Three of them lose one without losing a record.

    Args:
        folder: An empty folder, which the caller removes.
        ports: Two for each broker, which nothing else takes while a broker is down.
    """

    def __init__(self, folder: Path, ports: Sequence[int], *, heap_mb: int = 320) -> None:
        clients, controllers, cluster = ports[::2], tuple(ports[1::2]), new_cluster_id()
        nodes = [
            Node(folder / f"kafka-{n}", port, controllers[n - 1], heap_mb, n, controllers, cluster, session_ms=3_000)
            for n, port in enumerate(clients, 1)
        ]
        self.brokers = [TemporaryBroker(node.folder, node) for node in nodes]

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(broker.bootstrap_servers for broker in self.brokers)

    def start(self) -> None:
        """Start all, and wait until each answers.

        Raises:
            StartFailed: One ended, or makes no progress.
        """
        for broker in self.brokers:
            broker.launch()
        for broker in self.brokers:
            broker.await_answer()

    def stop(self) -> None:
        """End all at once. Idempotent."""
        for broker in self.brokers:
            broker.stop()
