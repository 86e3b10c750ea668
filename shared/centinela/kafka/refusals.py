"""Remembers that a broker refused this process, since a client then only reports a time-out.

Both clients treat a wrong password or an untrusted certificate as one more failed connection, and try again until a
time-out. What they report of it in their logs or to a callback is noted here, for the whole process: it has one access
to Kafka.
"""

from __future__ import annotations

import threading
import time

from centinela.errors import AccessRefused, DependencyUnavailable

FRESH_S = 8.0
"""A time-out this soon after a refusal is attributed to it: longer than a call waits."""


class Refusals:
    """The newest refusal. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: tuple[float, str] | None = None

    def note(self, detail: str) -> None:
        """A broker refused this process, as *detail* says."""
        with self._lock:
            self._latest = (time.monotonic(), detail)

    def recent(self) -> AccessRefused | None:
        """The error of a recent refusal; None where there is none."""
        with self._lock:
            latest = self._latest
        return unknown(latest[1]) if latest is not None and time.monotonic() - latest[0] < FRESH_S else None


REFUSALS = Refusals()


def no_answer(detail: str) -> AccessRefused | DependencyUnavailable:
    """The error of a call to which, by its client, there was no answer."""
    return REFUSALS.recent() or DependencyUnavailable(detail, dependency="kafka")


def unknown(detail: str) -> AccessRefused:
    """Kafka does not know this client, or the client does not trust Kafka."""
    return AccessRefused(
        f"Kafka refuses this client: {detail}. See CENTINELA_KAFKA_SECURITY_PROTOCOL, _SASL_MECHANISM, _SASL_USERNAME, "
        "_SASL_PASSWORD and _SSL_CAFILE"
    )


def forbidden(detail: str) -> AccessRefused:
    """Kafka knows this client, but does not allow what it asks for."""
    return AccessRefused(
        f"Kafka does not allow this to the client's user: {detail}. `centinela acls list` shows what each service needs"
    )
