"""Metrics of the online store, wherever it is written."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

EXPORTED_BY = ("feast",)
ROWS = Counter(
    "centinela_feature_store_rows_total",
    "Feature rows offered to the online store: written, superseded (the batch has a newer row of the same entity),"
    " late (a newer one is stored).",
    ["view", "outcome"],
)
NEWEST = Gauge(
    "centinela_feature_store_newest_timestamp_seconds",
    "Greatest event time offered to the online store by this process.",
    ["view"],
)


def count(view: str, offered: int, kept: int, written: int, newest_us: int) -> None:
    """Count a batch: rows *offered*, *kept* after all but the newest of each entity were left out, *written* in the
    end."""
    ROWS.labels(view, "superseded").inc(offered - kept)
    ROWS.labels(view, "late").inc(kept - written)
    ROWS.labels(view, "written").inc(written)
    NEWEST.labels(view).set(newest_us / 1e6)
