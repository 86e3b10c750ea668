"""Metrics that every process exports. A service's own metrics are in its ``metrics.py``; ``docs/metrics.md`` is
generated from them all."""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily

EXPORTED_BY = ("every process",)


class GaugeFamily(NamedTuple):
    """A gauge whose samples a collector makes each time metrics are scraped."""

    name: str
    documentation: str
    labels: tuple[str, ...] = ()

    def empty(self) -> GaugeMetricFamily:
        """The family without samples."""
        return GaugeMetricFamily(self.name, self.documentation, labels=self.labels)


CONSUMER_RECORDS = Counter("centinela_consumer_records_total", "Records consumed, by outcome.", ["topic", "outcome"])
CONSUMER_LAG = Gauge(
    "centinela_consumer_lag_records",
    "Records between the position and the end of the partition.",
    ["topic", "partition"],
)
CONSUMER_OFFSETS_MISSING = Counter(
    "centinela_consumer_offsets_missing_total",
    "Partitions taken over whose group offset was missing or past the end, although they had been read before.",
    ["topic"],
)
CONSUMER_OFFSETS_EXPIRED = Counter(
    "centinela_consumer_offsets_expired_total",
    "Offsets that retention had deleted before this group read them.",
    ["topic"],
)
CONSUMER_TRANSACTIONS = Counter("centinela_consumer_transactions_total", "Kafka transactions, by outcome.", ["outcome"])
DEPENDENCY_UP = Gauge("centinela_dependency_up", "1 while the dependency answers.", ["dependency"])
DEPENDENCY_ERRORS = Counter("centinela_dependency_errors_total", "Failed calls of a dependency.", ["dependency"])
REQUESTS_DENIED = Counter(
    "centinela_requests_denied_total", "Requests without a key, or with one that does not suffice.", ["error"]
)
UNKNOWN_FIELDS = Counter(
    "centinela_unknown_fields_total",
    "Fields of accepted transactions and labels that neither the event nor the layout knows: probably misspelt.",
    ["service"],
)
BATCH_DURATION = Histogram("centinela_batch_duration_seconds", "From poll's return to the commit.", ["service"])
