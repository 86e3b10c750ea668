"""uvicorn in a thread of its own, on a socket that was bound before anything else starts."""

from __future__ import annotations

import socket
import threading
from typing import NoReturn

import structlog
import uvicorn
from fastapi import FastAPI

_log = structlog.get_logger()


def bind(host: str, port: int, variable: str) -> socket.socket:
    """A listening socket.

    Args:
        variable: The setting that names the port, for the message.

    Raises:
        SystemExit: The port is taken or the address is not this machine's (exit 2, one clear line).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        refuse_port(host, port, variable, error)


def refuse_port(host: str, port: int, variable: str, error: OSError) -> NoReturn:
    """End the process with one clear line: the port cannot be had."""
    _log.error("port.unavailable", host=host, port=port, detail=f"{error.strerror}; choose another by {variable}")
    raise SystemExit(2) from error


class HttpServer:
    """Serves *app* until ``stop``: requests in flight are finished within *drain_timeout_s*."""

    def __init__(self, app: FastAPI, listening: socket.socket, drain_timeout_s: float) -> None:
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(drain_timeout_s)),
        )
        self._server = uvicorn.Server(config)
        self._socket = listening
        self._thread = threading.Thread(target=self._server.run, args=([listening],), name="http", daemon=True)
        self.port: int = listening.getsockname()[1]

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()
        _log.info("gateway.listening", port=self.port)

    def stop(self) -> None:
        """Take no more connections, finish what is in flight, return."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
