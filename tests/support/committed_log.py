"""The committed log of a running stack, read by an independent client."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

# An independent client: what it counts, our own code did not.
from kafka import KafkaConsumer, TopicPartition  # noqa: TID251


class Verdict(NamedTuple):
    """What a test needs of a record in ``predictions``."""

    transaction_id: str
    score: float | None
    decision: str
    origin: str
    model_version: str | None
    occurred_at: str


class Log:
    """What is committed in the topics of a stack, read by a plain client without a group.

    Args:
        tail: Start this many records before the end of each partition; None: at its beginning.
    """

    def __init__(self, servers: str, tail: int | None = None) -> None:
        self._servers = servers
        self._consumer = KafkaConsumer(
            bootstrap_servers=servers,
            group_id=None,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        self._partitions = [
            TopicPartition(topic, p)
            for topic in ("predictions", "transactions-dlq")
            for p in sorted(self._consumer.partitions_for_topic(topic))
        ]
        self._consumer.assign(self._partitions)
        if tail is not None:
            for partition, end in self._consumer.end_offsets(self._partitions).items():
                self._consumer.seek(partition, max(0, end - tail))
        self.verdicts: list[Verdict] = []
        self.dead_letters: list[dict[str, str]] = []
        """The headers of each."""

    def read(self) -> None:
        """Read to the current end."""
        ends = self._consumer.end_offsets(self._partitions)
        while any(self._consumer.position(partition) < ends[partition] for partition in self._partitions):
            for partition, records in self._consumer.poll(200, max_records=5_000).items():
                if partition.topic == "predictions":
                    self.verdicts += [_verdict(record.value) for record in records]
                else:
                    self.dead_letters += [
                        {name: value.decode() for name, value in record.headers} for record in records
                    ]

    def read_until(self, condition: Callable[[], bool], timeout_s: float = 90.0) -> None:
        """Read until *condition* holds.

        Raises:
            TimeoutError: It does not in time.
        """
        deadline = time.monotonic() + timeout_s
        self.read()
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{len(self.verdicts)} verdicts and {len(self.dead_letters)} dead letters, and not what was"
                    " expected"
                )
            time.sleep(0.02)
            self.read()

    def of(self, transaction_id: str) -> list[Verdict]:
        """The verdicts on *transaction_id* read so far."""
        return [verdict for verdict in self.verdicts if verdict.transaction_id == transaction_id]

    def verdict_on(self, transaction_id: str) -> Verdict:
        """The verdict on *transaction_id*, waited for."""
        self.read_until(lambda: bool(self.of(transaction_id)))
        return self.of(transaction_id)[0]

    def newest(self) -> datetime:
        """The event time that the verdicts have reached."""
        return max(datetime.fromisoformat(verdict.occurred_at) for verdict in self.verdicts)

    def events(self, topic: str) -> list[dict[str, Any]]:
        """Everything committed to *topic*, which is small."""
        consumer = KafkaConsumer(
            bootstrap_servers=self._servers, group_id=None, isolation_level="read_committed", enable_auto_commit=False
        )
        try:
            partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
            consumer.assign(partitions)
            consumer.seek_to_beginning()
            ends = consumer.end_offsets(partitions)
            events = []
            while any(consumer.position(partition) < ends[partition] for partition in partitions):
                for records in consumer.poll(200).values():
                    events += [json.loads(record.value) for record in records]
            return events
        finally:
            consumer.close()

    def close(self) -> None:
        self._consumer.close()


def _verdict(value: bytes) -> Verdict:
    event = json.loads(value)
    return Verdict(*(event.get(name) for name in Verdict._fields))
