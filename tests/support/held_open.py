"""A request whose body is on its way, for as long as a test wants."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping


class HeldOpen:
    """A POST of *body* to *path* on this machine, of which all but the first bytes is held back."""

    def __init__(self, port: int, path: str, body: Mapping[str, object]) -> None:
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length:"
            f" {len(data)}\r\n\r\n"
        )
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._connection.sendall(head.encode() + data[:10])
        self._rest = data[10:]

    def finish(self) -> str:
        """Send the rest; the whole answer, once the other side has closed."""
        self._connection.sendall(self._rest)
        with self._connection, self._connection.makefile("rb") as answer:
            return answer.read().decode()
