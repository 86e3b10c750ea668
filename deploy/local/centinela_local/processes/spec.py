"""What a process of the local stack is: its command, port and environment."""

from __future__ import annotations

from dataclasses import dataclass, field

from centinela_local.processes.ports import LOOPBACK


@dataclass(frozen=True)
class Process:
    """One supervised process.

    Args:
        port: What it listens on; ``port_field`` is the setting that changes it.
        ready_path: Path of the HTTP answer that tells readiness; None for the broker.
        nice: Added to the scheduling priority value, so that training yields to serving.
    """

    name: str
    command: tuple[str, ...]
    port: int
    port_field: str
    ready_path: str | None = "/ready"
    environment: dict[str, str] = field(default_factory=dict)
    nice: int = 0
    stop_wait_s: int = 20

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def port_variable(self) -> str:
        return f"CENTINELA_{self.port_field.upper()}"
