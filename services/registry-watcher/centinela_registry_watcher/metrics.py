"""The watcher's metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

EXPORTED_BY = ("registry-watcher",)
ANNOUNCED = Counter("centinela_promotions_announced_total", "ModelPromoted events written.", ["alias"])
SEQUENCE = Gauge("centinela_promotion_sequence", "Highest sequence on model-events.")
STAGE_FAILURES = Counter("centinela_stage_tag_failures_total", "Attempts to write stage tags that failed.")
POLL_DURATION = Histogram(
    "centinela_registry_poll_duration_seconds",
    "One look at the registry's aliases.",
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
