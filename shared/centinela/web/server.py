"""uvicorn in its own thread, on a socket that was bound before anything else started."""

from __future__ import annotations

import socket
from collections.abc import Callable

import structlog
import uvicorn
from fastapi import FastAPI

from centinela.liveness.health import Health
from centinela.liveness.threads import GuardedThread

_log = structlog.get_logger(__name__)


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
        _log.error("port.unavailable", host=host, port=port, detail=f"{error.strerror}; choose another by {variable}")
        raise SystemExit(2) from error


class HttpServer:
    """Serves *app* from ``start`` to ``stop``.

    Args:
        listening: Taken over: ``stop`` closes it.
        drain_s: ``stop`` waits at most this long for the requests in flight.
        health: Dies where the server fails.
        on_failure: Called then.
    """

    def __init__(
        self,
        app: FastAPI,
        listening: socket.socket,
        drain_s: float,
        health: Health,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(drain_s)),
        )
        self._server = uvicorn.Server(config)
        self._socket = listening
        self._thread = GuardedThread("http", self._serve, health, on_failure)
        self.host: str = listening.getsockname()[0]
        self.port: int = listening.getsockname()[1]

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()
        _log.info("process.listening", host=self.host, port=self.port)

    def stop(self) -> None:
        """Refuse new connections, finish the requests in flight, return."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        self._server.run([self._socket])
