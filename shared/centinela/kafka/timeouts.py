"""Bounds that both adapters keep: no call to a broker waits longer, no record is larger."""

from __future__ import annotations

from dataclasses import dataclass

MAX_REQUEST_BYTES = 1_048_576
"""The largest record that a producer accepts: the broker's own default."""

FETCH_BYTES = 128 * 1024
"""What a consumer fetches of a partition at once, compressed: a backlog of one partition must not hold up the others,
and all must be read evenly in event time."""

QUEUE_BYTES = 64 * 1024 * 1024
"""What a producer holds at most before ``send`` waits."""


@dataclass(frozen=True)
class KafkaTimeouts:
    """Time-outs in seconds.

    Attributes:
        request_s: A broker that does not answer a request within this time counts as unavailable.
        transaction_s: After this time the broker aborts an open transaction by itself.
        commit_s: A commit without an answer for this long is given up, before the broker's own time-out fences the
            producer.
        session_s: A group member without a heartbeat for this long loses its partitions.
        heartbeat_s: Interval of a member's heartbeats.
        max_poll_s: A group member that does not poll for this long loses its partitions.
        delivery_s: A record of a plain producer that is not acknowledged for this long has failed.
        queue_s: How long ``send`` waits for room in a full queue.
        probe_after_s: A poll that stayed empty for this long asks whether the brokers answer.
        metadata_s: A client notices new partitions, and a change of leaders that cost it no request, at this interval.
        retry_backoff_s: Pause before a request is repeated.
        reconnect_max_s: Longest pause between attempts to connect.
    """

    request_s: float = 5.0
    transaction_s: float = 10.0
    commit_s: float = 8.0
    session_s: float = 10.0
    heartbeat_s: float = 1.0
    max_poll_s: float = 300.0
    delivery_s: float = 30.0
    queue_s: float = 2.0
    probe_after_s: float = 3.0
    metadata_s: float = 30.0
    retry_backoff_s: float = 0.005
    reconnect_max_s: float = 1.0

    @property
    def request_ms(self) -> int:
        return int(self.request_s * 1000)


TIMEOUTS = KafkaTimeouts()
