"""Reads everything back with a client that the stream does not use, raw and read_committed."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec

# An independent client: what it reads, our own code did not.
from kafka import KafkaConsumer, TopicPartition  # noqa: TID251
from kafka.partitioner.default import murmur2  # noqa: TID251

from tests.support.faultrun.ledger import fingerprint

Place = tuple[int, int]
"""Partition and offset."""
_SILENCE_S = 120.0
_DAY_MS = 86_400_000


class Raw(msgspec.Struct):
    """A record as it stands."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]
    timestamp_ms: int = 0


class Transaction(msgspec.Struct):
    """What a record of ``transactions`` says, by a decoder of the tests' own."""

    transaction_id: str
    occurred_at: datetime
    amount: float
    user_id: str | None = None
    terminal_id: str | None = None
    attributes: dict[str, float | None] = {}


class Scored(msgspec.Struct):
    """What a record of ``predictions`` says."""

    transaction_id: str
    occurred_at: datetime
    amount: float
    decision: str
    origin: str
    features: bytes
    scored_at: datetime
    user_id: str | None = None
    terminal_id: str | None = None
    score: float | None = None
    model_version: str | None = None


class Reported(msgspec.Struct):
    """What a record of ``labels`` says."""

    transaction_id: str
    is_fraud: bool
    occurred_at: datetime
    reported_at: datetime


@dataclass
class Places:
    """Partition and offset of each record read, in the order of reading."""

    partitions: array[int] = field(default_factory=lambda: array("h"))
    offsets: array[int] = field(default_factory=lambda: array("q"))

    def add(self, record: Raw) -> None:
        self.partitions.append(record.partition)
        self.offsets.append(record.offset)

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.partitions, self.offsets, strict=True)


@dataclass
class ReadBack:
    """Everything, row by row.

    Attributes:
        transactions: Aligned with ``log``; a record that cannot be read is None.
        fingerprints: Aligned with ``log``.
        mistimed: Places in ``transactions`` whose time stamp in Kafka cannot be that of what they say.
        misrouted: Places in ``transactions`` that are not those of their key among the partitions there are now.
        labels: Aligned with ``label_places``.
        mistimed_labels: Places in ``labels``, as ``mistimed``.
        panes: Model version and count of each.
    """

    log: Places = field(default_factory=Places)
    transactions: list[Transaction | None] = field(default_factory=list)
    fingerprints: list[int] = field(default_factory=list)
    mistimed: set[Place] = field(default_factory=set)
    misrouted: set[Place] = field(default_factory=set)
    verdict_places: Places = field(default_factory=Places)
    verdicts: list[Scored] = field(default_factory=list)
    letters: list[dict[str, bytes]] = field(default_factory=list)
    label_places: Places = field(default_factory=Places)
    labels: list[Reported] = field(default_factory=list)
    label_fingerprints: list[int] = field(default_factory=list)
    mistimed_labels: set[Place] = field(default_factory=set)
    label_letters: list[dict[str, bytes]] = field(default_factory=list)
    model_events: list[dict[str, Any]] = field(default_factory=list)
    panes: list[tuple[str, int]] = field(default_factory=list)

    @cached_property
    def row_at(self) -> dict[tuple[int, int], int]:
        """Row of each place in ``transactions``."""
        return {place: row for row, place in enumerate(self.log)}

    @cached_property
    def refused(self) -> set[Place]:
        """Places of sound transactions whose outcome is a dead letter: what is mistimed, and what is misrouted and came
        after its partition was divided: where there is no such letter of it, it must have a verdict."""
        turned_away = {
            (int(headers["dlq.partition"]), int(headers["dlq.offset"]))
            for headers in self.letters
            if headers.get("dlq.reason") == b"wrong_partition"
        }
        return self.mistimed | (self.misrouted & turned_away)


def read_back(servers: str) -> ReadBack:
    """All topics from their beginning to their current end."""
    found = ReadBack()
    decode_transaction = msgspec.json.Decoder(Transaction).decode
    decode_scored = msgspec.json.Decoder(Scored).decode
    decode_label = msgspec.json.Decoder(Reported).decode
    partitions = partition_count(servers, "transactions")
    for record in records_of(servers, "transactions"):
        found.log.add(record)
        found.fingerprints.append(fingerprint(record.value))
        if record.key is not None and partition_of(record.key, partitions) != record.partition:
            found.misrouted.add((record.partition, record.offset))
        try:
            transaction = decode_transaction(record.value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError):
            found.transactions.append(None)
            continue
        found.transactions.append(transaction)
        if is_mistimed(record, transaction.occurred_at):
            found.mistimed.add((record.partition, record.offset))
    for record in records_of(servers, "predictions"):
        found.verdict_places.add(record)
        found.verdicts.append(decode_scored(record.value or b""))
    found.letters = [record.headers for record in records_of(servers, "transactions-dlq")]
    for record in records_of(servers, "labels"):
        found.label_places.add(record)
        label = decode_label(record.value or b"")
        found.labels.append(label)
        found.label_fingerprints.append(fingerprint(record.value))
        if is_mistimed(record, label.occurred_at):
            found.mistimed_labels.add((record.partition, record.offset))
    found.label_letters = [record.headers for record in records_of(servers, "labels-dlq")]
    found.model_events = [
        msgspec.json.decode(record.value) for record in records_of(servers, "model-events") if record.value
    ]
    for record in records_of(servers, "feature-panes"):
        pane = msgspec.json.decode(record.value or b"")
        found.panes.append((pane["model_version"], pane["count"]))
    return found


def is_mistimed(record: Raw, occurred_at: datetime) -> bool:
    """Whether Kafka's time stamp of *record* is over a day before it happened: it is no time in milliseconds then."""
    return 0 < record.timestamp_ms < occurred_at.timestamp() * 1000 - _DAY_MS


def partition_of(key: bytes, partitions: int) -> int:
    """Where every client's murmur2 partitioner puts *key*."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def partition_count(servers: str, topic: str) -> int:
    """How many partitions *topic* has now."""
    consumer = KafkaConsumer(bootstrap_servers=servers, group_id=None, enable_auto_commit=False)
    try:
        return len(consumer.partitions_for_topic(topic) or ())
    finally:
        consumer.close()


def records_of(servers: str, topic: str) -> Iterator[Raw]:
    """The committed records of *topic* up to its end as it is now, partition by partition.

    Raises:
        TimeoutError: It cannot be read to its end.
    """
    consumer = KafkaConsumer(
        bootstrap_servers=servers,
        group_id=None,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=8 * 1024 * 1024,
        check_crcs=True,
    )
    try:
        for number in sorted(consumer.partitions_for_topic(topic) or ()):
            partition = TopicPartition(topic, number)
            consumer.assign([partition])
            consumer.seek_to_beginning()
            end = consumer.end_offsets([partition])[partition]
            heard = time.monotonic()
            while consumer.position(partition) < end:
                for records in consumer.poll(500, max_records=20_000).values():
                    heard = time.monotonic()
                    for record in records:
                        yield Raw(
                            number, record.offset, record.key, record.value, dict(record.headers), record.timestamp
                        )
                if time.monotonic() - heard > _SILENCE_S:
                    raise TimeoutError(
                        f"{topic}-{number}: at {consumer.position(partition)} of {end}, and nothing comes"
                    )
    finally:
        consumer.close()
