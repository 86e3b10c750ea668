"""Bounds that both adapters keep: no call to a broker waits longer, no record is larger."""

from __future__ import annotations

REQUEST_TIMEOUT_S = 5.0
"""A broker that does not answer a request within this time counts as away."""

TRANSACTION_TIMEOUT_S = 10.0
"""After this time the broker aborts an open transaction by itself."""

COMMIT_TIMEOUT_S = 8.0
"""A commit without an answer for so long is given up, before the broker's own time-out would fence the producer."""

SESSION_TIMEOUT_S = 10.0
"""A group member without a heartbeat for so long loses its partitions."""

HEARTBEAT_S = 1.0

MAX_POLL_INTERVAL_S = 300.0
"""A group member that does not poll for so long loses its partitions."""

MAX_REQUEST_BYTES = 1_048_576
"""The largest record that a producer accepts: the broker's own default."""

RETRY_BACKOFF_S = 0.005
RECONNECT_BACKOFF_MAX_S = 1.0

PROBE_AFTER_S = 3.0
"""A poll that stayed empty for so long asks whether the brokers are there at all."""

QUEUE_BYTES = 64 * 1024 * 1024
"""What a producer holds at most before ``send`` waits."""

QUEUE_WAIT_S = 2.0
"""How long ``send`` waits for room."""
