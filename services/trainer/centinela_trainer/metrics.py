"""Metrics of the trainer and the archive."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

EXPORTED_BY = ("archive", "trainer")
ARCHIVED_RECORDS = Counter("centinela_archive_records_total", "Records written to the archive.", ["stream"])
ARCHIVED_BYTES = Counter("centinela_archive_bytes_total", "Bytes of Parquet written.", ["stream"])
ARCHIVE_FILES = Counter("centinela_archive_files_total", "Parquet files written.", ["stream"])
ARCHIVE_FLUSH_DURATION = Histogram(
    "centinela_archive_flush_duration_seconds", "From the first file to the last rename of a flush."
)
ARCHIVE_BUFFERED = Gauge("centinela_archive_buffered_records", "Records read but not yet archived.")

TRAINING_RUNNING = Gauge("centinela_training_running", "1 while a training child runs.")
TRAININGS = Counter("centinela_trainings_total", "Training requests answered, by outcome.", ["outcome"])
TRAINING_DURATION = Histogram(
    "centinela_training_duration_seconds",
    "From the request's arrival to its answer.",
    buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800),
)

SNAPSHOTS_PUSHED = Counter("centinela_snapshots_pushed_total", "Training snapshots that reached the remote.")
SNAPSHOT_PUSHED_BYTES = Counter("centinela_snapshot_pushed_bytes_total", "Bytes of snapshots that the remote lacked.")
SNAPSHOT_PUSH_FAILURES = Counter(
    "centinela_snapshot_push_failures_total", "Pushes of a snapshot that failed; they are tried again."
)
SNAPSHOTS_UNPUSHED = Gauge(
    "centinela_snapshots_unpushed", "Snapshots that the remote does not have, as of the last try."
)
