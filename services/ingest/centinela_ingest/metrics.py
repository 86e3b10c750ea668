"""What ingest's HTTP side counts."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

EXPORTED_BY = ("ingest",)
ACCEPTED = Counter("centinela_ingest_accepted_total", "Transactions and labels that Kafka acknowledged.", ["kind"])
REFUSED = Counter("centinela_ingest_refused_total", "Requests not accepted, by reason.", ["kind", "error"])
DURATION = Histogram(
    "centinela_ingest_request_duration_seconds",
    "From the body's arrival to Kafka's acknowledgement.",
    ["kind"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
