"""Which broker the stack runs on, and the one that Docker runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Literal

from centinela_local.broker.jars import INSTALL_HINT
from centinela_local.errors import StartFailed, ToolMissing
from centinela_local.paths import CHECKOUT

BrokerKind = Literal["external", "embedded", "docker"]
_DOCKER_TIMEOUT_S = 10


def choose_broker(*, external: bool, can_embed: bool, docker_answers: bool) -> BrokerKind:
    """The broker to use: one that the environment names, else the embedded one, else Docker's.

    Raises:
        ToolMissing: There is none.
    """
    if external:
        return "external"
    if can_embed:
        return "embedded"
    if docker_answers:
        return "docker"
    raise ToolMissing(
        f"no Kafka to run on. Either {INSTALL_HINT}, or start a Docker engine, or set KAFKA_BOOTSTRAP_SERVERS"
    )


def docker_answers() -> bool:
    """Whether a Docker engine with compose can be used."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    for arguments in (["info"], ["compose", "version"]):
        try:
            done = subprocess.run(
                [docker, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_DOCKER_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        if done.returncode != 0:
            return False
    return True


class DockerBroker:
    """The ``kafka`` service of ``docker-compose.yml`` in a compose project of its own.

    Args:
        project: Name of the compose project.
        environment: Holds ``CENTINELA_KAFKA_PORT``.
    """

    def __init__(
        self, project: str, environment: dict[str, str], compose_file: Path = CHECKOUT / "docker-compose.yml"
    ) -> None:
        self._base = ["docker", "compose", "-p", project, "-f", str(compose_file)]
        self._environment = environment

    def start(self) -> None:
        """Start it, or leave it running, and wait until Docker calls it healthy."""
        self._run("up", "-d", "--wait", "--quiet-pull", "kafka")

    def stop(self, *, wipe: bool = False) -> None:
        """Remove the container; with *wipe* its data too. Idempotent."""
        self._run("down", *(["--volumes"] if wipe else []))

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(
            [*self._base, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self._environment,
            check=False,
        )
        if done.returncode != 0:
            raise StartFailed(f"docker compose {arguments[0]} failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")
