"""That a broker refused us, kept for the moment in which a client only says that it had no answer.

Both clients treat a wrong password or a strange certificate as one more failed connection and try on until a time-out.
What they say beside it, in their logs or to a callback, is noted here, for the whole process: it has one access to
Kafka.
"""

from __future__ import annotations

import threading
import time

from centinela.errors import AccessRefused, DependencyUnavailable

FRESH_S = 8.0
"""A time-out this soon after a refusal is due to it: longer than a call waits."""


class Refusals:
    """The newest refusal. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted: tuple[float, str] | None = None

    def note(self, detail: str) -> None:
        """A broker refused us, as *detail* says."""
        with self._lock:
            self._noted = (time.monotonic(), detail)

    def recent(self) -> AccessRefused | None:
        """The error of a fresh refusal."""
        with self._lock:
            noted = self._noted
        return unknown(noted[1]) if noted is not None and time.monotonic() - noted[0] < FRESH_S else None


REFUSALS = Refusals()


def no_answer(detail: str) -> AccessRefused | DependencyUnavailable:
    """The error of a call that a client says had no answer."""
    return REFUSALS.recent() or DependencyUnavailable(detail, dependency="kafka")


def unknown(detail: str) -> AccessRefused:
    """Kafka does not know us, or we do not trust it."""
    return AccessRefused(
        f"Kafka refuses this client: {detail}. See CENTINELA_KAFKA_SECURITY_PROTOCOL, _SASL_MECHANISM, _SASL_USERNAME, "
        "_SASL_PASSWORD and _SSL_CAFILE"
    )


def forbidden(detail: str) -> AccessRefused:
    """Kafka knows us, but does not let us."""
    return AccessRefused(
        f"Kafka does not let this client's user: {detail}. `centinela acls list` shows what each service needs"
    )
