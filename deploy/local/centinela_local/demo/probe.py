"""A light client: posts payments a few times a second, over the swap too, and counts what fails."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime

_TIMEOUT_S = 5.0


class Probe:
    """Posts small payments of its own cards, at the event time that the stream has reached.

    Args:
        url: Where it posts them: the gateway's ``/predict``, or the ingest API's ``/transactions``.
        event_time: Gives the stream's event time; nothing is sent while it is None.
        interval_s: Pause between requests.
        name: Begins its transactions' and cards' ids.
    """

    def __init__(
        self, url: str, event_time: Callable[[], datetime | None], *, interval_s: float = 0.25, name: str = "probe"
    ) -> None:
        self._url = url
        self._event_time = event_time
        self._interval_s = interval_s
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.requests = 0
        self.failures: list[str] = []
        self.version: str | None = None
        """The model version that the last verdict named."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop after the request in flight."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_TIMEOUT_S + 1)

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            at = self._event_time()
            if at is not None:
                self._ask(at)

    def _ask(self, at: datetime) -> None:
        number = self.requests
        self.requests += 1
        body = {
            "transaction_id": f"{self._name}-{number}",
            "user_id": f"{self._name}-{number % 20}",
            "amount": 10 + number % 50,
            "occurred_at": at.isoformat(),
        }
        request = urllib.request.Request(self._url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                self.version = json.load(response).get("model_version", self.version)
        except urllib.error.HTTPError as error:
            with error:
                self.failures.append(f"{error.code}: {error.read(300).decode(errors='replace')}")
        except (OSError, ValueError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
