"""Administers consumer groups on the configured brokers, by kafka-python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

import kafka.errors as kafka_errors
from kafka.admin import KafkaAdminClient
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as KafkaPartition

from centinela.errors import DependencyUnavailable
from centinela.kafka.access import Access
from centinela.kafka.kafka_python.common import common_config, mapped_errors
from centinela.kafka.port import TopicPartition
from centinela.kafka.timeouts import TIMEOUTS
from centinela.liveness.deadline import call_with_deadline

T = TypeVar("T")


class GroupAdmin:
    """``GroupAdmin`` of the port; each call makes a connection of its own, since calls are rare."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def members(self, group: str) -> int:
        try:
            described = self._call(lambda client: client.describe_groups([group]))
        except kafka_errors.GroupIdNotFoundError:
            return 0
        return len(described[group]["members"])

    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        positions = {KafkaPartition(*p): OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()}
        results = self._call(lambda client: client.alter_group_offsets(group, positions))
        for partition, error in results.items():
            if error is not kafka_errors.NoError:
                raise DependencyUnavailable(
                    f"group {group} does not take an offset of {partition.topic}-{partition.partition}:"
                    f" {error.__name__}",
                    dependency="kafka",
                )

    def _call(self, call: Callable[[KafkaAdminClient], T]) -> T:
        def connected() -> T:
            client = KafkaAdminClient(**common_config(self._access, TIMEOUTS))
            try:
                return call(client)
            finally:
                with suppress(kafka_errors.KafkaError):
                    client.close()

        with mapped_errors():
            return call_with_deadline(connected, 2 * TIMEOUTS.request_s, name="kafka-groups")
