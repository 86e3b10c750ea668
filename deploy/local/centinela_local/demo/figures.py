"""Reads the live figures off the processes' metrics pages."""

from __future__ import annotations

import urllib.request
from collections import deque

from centinela import topics
from centinela_local.demo.exposition import samples, total
from centinela_local.demo.view import Figures

_TIMEOUT_S = 2.0
_RATE_OVER_S = 5.0


class Meter:
    """The stream predictor's progress.

    Args:
        stream_url: Address of its metrics.
    """

    def __init__(self, stream_url: str) -> None:
        self._url = stream_url
        self._seen: deque[tuple[float, float]] = deque()

    def read(self, figures: Figures, now: float) -> bool:
        """Update *figures* at monotonic time *now*; False where the stream does not answer."""
        page = metrics_page(self._url)
        if page is None:
            return False
        figures.processed = sum(
            value
            for labels, value in samples(page, "centinela_consumer_records_total")
            if labels["topic"] == topics.TRANSACTIONS.name and labels["outcome"] != "held"
        )
        figures.fraud_rate = total(page, "fraud_rate")
        figures.lag = total(page, "centinela_consumer_lag_records", topic=topics.TRANSACTIONS.name) or 0.0
        self._seen.append((now, figures.processed))
        while now - self._seen[0][0] > _RATE_OVER_S:
            self._seen.popleft()
        started, processed = self._seen[0]
        figures.per_s = max(0.0, figures.processed - processed) / (now - started) if now > started else 0.0
        return True


def metrics_page(url: str) -> str | None:
    """The text of a process's ``/metrics``; None where it does not answer."""
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=_TIMEOUT_S) as response:
            content: bytes = response.read()
            return content.decode()
    except OSError:
        return None
