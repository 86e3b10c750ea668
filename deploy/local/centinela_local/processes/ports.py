"""TCP ports on the loopback interface."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"
_BELOW_EPHEMERAL = range(20_000, 32_000)
"""None that the kernel gives to clients."""


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_taken(port: int) -> bool:
    """Whether a listener on *port* would fail to start."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
        return False


def steady_ports(count: int) -> list[int]:
    """Ports nobody listens on now, and which stay free while a process that has one is started again."""
    candidates = (port for port in random.sample(_BELOW_EPHEMERAL, len(_BELOW_EPHEMERAL)) if not is_taken(port))
    return [port for port, _ in zip(candidates, range(count), strict=False)]
