"""The one partitioner: murmur2 of the key, as the Java client, kafka-python and librdkafka's ``murmur2_random`` do
it."""

from __future__ import annotations

from kafka.partitioner.default import murmur2


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of *key* among *partitions* (> 0)."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
