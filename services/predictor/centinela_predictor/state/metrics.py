"""Metrics of feature state, which the stream owns and the gateway copies: both export them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

EXPORTED_BY = ("gateway", "stream")
TERMINAL_RECORDS = Counter(
    "centinela_terminal_records_total",
    "Blocks and labels read for terminal state, by what became of them.",
    ["topic", "outcome"],
)
HELD = Counter(
    "centinela_stream_held_total", "Batches of a partition that were held back, by what they wait for.", ["reason"]
)
GATE_FORCED = Counter(
    "centinela_stream_gate_forced_total",
    "Transactions scored although other partitions were too far behind for too long.",
)
WATERMARK = Gauge(
    "centinela_stream_watermark_timestamp_seconds", "Greatest event time processed of a partition.", ["partition"]
)
LATE = Counter(
    "centinela_stream_late_total",
    "Transactions older than their user's newest: accepted, or too_late (over two days) for whole windows.",
    ["outcome"],
)
MISROUTED = Counter(
    "centinela_stream_misrouted_total",
    "Transactions in another partition than murmur2 of their user id, by cause: partitioner, key, no_key.",
    ["cause"],
)
SNAPSHOT_DURATION = Histogram(
    "centinela_snapshot_duration_seconds",
    "Making and writing one snapshot of feature state.",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
)
SNAPSHOT_FAILURES = Counter("centinela_snapshot_failures_total", "Snapshots that the disk refused.")
