"""The gateway's metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

EXPORTED_BY = ("gateway",)

PREDICTION_LATENCY = Histogram(
    "prediction_latency_seconds",
    "From a request's arrival to its answer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


GATEWAY_REFUSED = Counter("centinela_gateway_refused_total", "Requests not served, by the error answered.", ["error"])


GATEWAY_REPEATED = Counter("centinela_gateway_repeated_total", "Transactions answered with the verdict given before.")


OUTBOX_RECORDS = Gauge(
    "centinela_gateway_outbox_records", "Verdicts in the outbox: answered, and not acknowledged by Kafka yet."
)


OUTBOX_BYTES = Gauge("centinela_gateway_outbox_bytes", "Size of the verdicts in the outbox.")


OUTBOX_OLDEST = Gauge("centinela_gateway_outbox_oldest_seconds", "Age of the oldest verdict in the outbox.")


OUTBOX_WRITTEN = Counter(
    "centinela_gateway_outbox_written_total",
    "Verdicts that went to the outbox because Kafka did not acknowledge in time.",
)


OUTBOX_DELIVERED = Counter(
    "centinela_gateway_outbox_delivered_total", "Verdicts that left the outbox: the log has them."
)


OUTBOX_SET_ASIDE = Counter(
    "centinela_gateway_outbox_set_aside_total",
    "Verdicts of the outbox that Kafka will never take; they stay in its table `refused`.",
)


REPLICA_RECORDS = Counter(
    "centinela_replica_records_total",
    "Records that the gateway followed, by what became of them.",
    ["topic", "outcome"],
)
