"""The port's consumer on kafka-python (producers: ``producers``).

Rebalance listeners run on the client's I/O loop, so they only set flags. A held partition is not paused, since that can
starve the others: its records are dropped as they come, and read again. After a broker's long silence the client's
heartbeat can end for good, and the group forgets a member that does not notice: commits that are refused again and
again make the adapter join again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal

import kafka.errors as kafka_errors
from kafka.consumer.group import KafkaConsumer
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as KafkaPartition

from centinela.errors import DependencyUnavailable, TransactionAborted
from centinela.kafka.access import Access
from centinela.kafka.connection import Connection
from centinela.kafka.kafka_python.common import common_config, mapped_errors
from centinela.kafka.kafka_python.records import read_any_header_name
from centinela.kafka.port import Rebalance, Record, TopicPartition
from centinela.kafka.timeouts import FETCH_BYTES, TIMEOUTS, KafkaTimeouts
from centinela.liveness.deadline import DeadlineExceeded, DeadlineRunner

_SLICE_MS = 50
"""Longest time in which a member of a group does not check for a rebalance."""
_GROUP_FETCH_MS, _TABLE_FETCH_MS = 200, 500
"""How long a broker waits for records: in a group, records of one partition wait meanwhile for those that are empty."""
_ALLOWED_MS = 500
_HELD_PAUSE_S = 0.1
"""Pause after a poll that had records of held partitions only, which the next poll fetches again."""
_REFUSALS = 5


class _Flags(ConsumerRebalanceListener):  # type: ignore[misc]
    """Collects rebalances for ``take``; called on the I/O loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._assigned: set[TopicPartition] = set()
        self._revoked: set[TopicPartition] = set()
        self._lost: set[TopicPartition] = set()
        self.pending = False

    def on_partitions_assigned(self, assigned: Collection[KafkaPartition]) -> None:
        with self._lock:
            self._assigned.update(TopicPartition(*p) for p in assigned)
            self.pending = self.pending or bool(assigned)

    def on_partitions_revoked(self, revoked: Collection[KafkaPartition]) -> None:
        self._gone(revoked, self._revoked)

    def on_partitions_lost(self, lost: Collection[KafkaPartition]) -> None:
        self._gone(lost, self._lost)

    def _gone(self, partitions: Collection[KafkaPartition], kind: set[TopicPartition]) -> None:
        with self._lock:
            kind.update(TopicPartition(*p) for p in partitions)
            self._assigned.difference_update(TopicPartition(*p) for p in partitions)
            self.pending = self.pending or bool(partitions)

    def take(self) -> Rebalance | None:
        with self._lock:
            if not self.pending:
                return None
            change = Rebalance(frozenset(self._assigned), frozenset(self._revoked), frozenset(self._lost))
            self._assigned = set()
            self._revoked = set()
            self._lost = set()
            self.pending = False
            return change


class KafkaPythonConsumer:
    """``Consumer`` of the port; see there for what each call promises."""

    def __init__(
        self,
        brokers: str | Access,
        group: str | None,
        start: Literal["earliest", "latest"] = "earliest",
        instance_id: str | None = None,
        timeouts: KafkaTimeouts = TIMEOUTS,
    ) -> None:
        self._brokers = brokers
        self._group = group
        self._start = start
        self._instance_id = instance_id
        self._timeouts = timeouts
        self._flags = _Flags()
        self._connection: Connection[KafkaConsumer] = Connection(self._connect)
        self._runner: DeadlineRunner | None = None
        self._topics: list[str] = []
        self._manual: frozenset[TopicPartition] = frozenset()
        self._held: set[TopicPartition] = set()
        self._heard_at = float("-inf")
        self._silent = False
        self._refused = 0

    def subscribe(self, topics: Collection[str]) -> None:
        self._topics = list(topics)
        if (client := self._connection.current) is not None:
            client.subscribe(self._topics, listener=self._flags)

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        self._manual = frozenset(partitions)
        self._held = set()
        if (client := self._connection.current) is not None:
            self._assign(client)

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        if self._refused >= _REFUSALS:
            self._join_again()
            return []
        client = self._connection.get()
        deadline = time.monotonic() + timeout_s
        longest_s = timeout_s if self._group is None else _SLICE_MS / 1000
        while not self._flags.pending:
            left_s = max(0.0, min(longest_s, deadline - time.monotonic()))
            with mapped_errors():
                batches = client.poll(timeout_ms=int(left_s * 1000), max_records=max_records)
            if batches:
                self._heard()
                if self._flags.pending:
                    self._put_back(client, batches)
                    return []
                if self._held:
                    batches = self._without_held(client, batches)
                if batches:
                    return [
                        Record(r.topic, r.partition, r.offset, r.key, r.value, tuple(r.headers), r.timestamp)
                        for batch in batches.values()
                        for r in batch
                    ]
                time.sleep(max(0.0, min(_HELD_PAUSE_S, deadline - time.monotonic())))
            if time.monotonic() >= deadline:
                break
        if not self._flags.pending:
            self._probe(client)
        return []

    def take_rebalance(self) -> Rebalance | None:
        change = self._flags.take()
        if change is not None:
            self._refused = 0
            self._held -= change.assigned | change.revoked | change.lost
        return change

    def assignment(self) -> frozenset[TopicPartition]:
        client = self._connection.current
        return frozenset(TopicPartition(*p) for p in client.assignment() or ()) if client is not None else frozenset()

    def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        if self._group is None:
            return dict.fromkeys(partitions)
        with mapped_errors():
            client = self._connection.get()
            return {p: client.committed(KafkaPartition(*p), timeout_ms=self._timeouts.request_ms) for p in partitions}

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        with mapped_errors():
            offsets = self._connection.get().beginning_offsets(
                [KafkaPartition(*p) for p in partitions], timeout_ms=self._timeouts.request_ms
            )
        return {TopicPartition(*p): offset for p, offset in offsets.items()}

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        with mapped_errors():
            offsets = self._connection.get().end_offsets(
                [KafkaPartition(*p) for p in partitions], timeout_ms=self._timeouts.request_ms
            )
        return {TopicPartition(*p): offset for p, offset in offsets.items()}

    def position(self, partition: TopicPartition) -> int:
        with mapped_errors():
            offset = self._connection.get().position(KafkaPartition(*partition), timeout_ms=self._timeouts.request_ms)
        if offset is None:
            raise DependencyUnavailable(f"Kafka does not report the position in {partition}", dependency="kafka")
        return int(offset)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._connection.get().seek(KafkaPartition(*partition), offset)

    def hold(self, offsets: Mapping[TopicPartition, int | None]) -> None:
        for partition, offset in offsets.items():
            if offset is not None:
                self.seek(partition, offset)
        self._held.update(offsets)

    def release(self, partitions: Collection[TopicPartition]) -> None:
        self._held.difference_update(partitions)

    def partitions_of(self, topic: str) -> frozenset[TopicPartition]:
        with mapped_errors():
            client = self._connection.get()
            self._runner = self._runner or DeadlineRunner("kafka-metadata")
            try:
                numbers = self._runner.run(lambda: client.partitions_for_topic(topic), self._timeouts.request_s)
            except DeadlineExceeded:
                self._runner = None
                raise
            if not numbers:  # it may exist, but be hidden: only a call about the topic itself is refused
                with suppress(kafka_errors.KafkaTimeoutError, kafka_errors.UnknownTopicOrPartitionError):
                    client.end_offsets([KafkaPartition(topic, 0)], timeout_ms=_ALLOWED_MS)
        return frozenset(TopicPartition(topic, n) for n in numbers)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        positions = {KafkaPartition(*p): OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()}
        with self.committing(), mapped_errors():
            if not self.assignment() >= set(offsets):
                raise TransactionAborted("the partitions are no longer assigned to this consumer")
            self._connection.get().commit(positions, timeout_ms=self._timeouts.request_ms)

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Counts the commits that the group refuses in a row."""
        try:
            yield
        except TransactionAborted:
            self._refused += 1
            raise
        self._refused = 0

    def group_metadata(self) -> Any:
        """What the transactional producer of this client needs to commit for this member."""
        return self._connection.get().group_metadata()

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()
        if (client := self._connection.drop()) is not None:
            _close(client, self._timeouts.request_ms)
            self._flags.take()

    def _connect(self) -> KafkaConsumer:
        read_any_header_name()
        timeouts = self._timeouts
        group = (
            {}
            if self._group is None
            else {
                "group_id": self._group,
                "group_instance_id": self._instance_id,
                "session_timeout_ms": int(timeouts.session_s * 1000),
                "heartbeat_interval_ms": int(timeouts.heartbeat_s * 1000),
                "max_poll_interval_ms": int(timeouts.max_poll_s * 1000),
                "partition_assignment_strategy": [CooperativeStickyAssignor],
            }
        )
        with mapped_errors():
            client = KafkaConsumer(
                **common_config(self._brokers, timeouts),
                **group,
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset=self._start,
                allow_auto_create_topics=False,
                fetch_max_wait_ms=_GROUP_FETCH_MS if group else _TABLE_FETCH_MS,
                max_partition_fetch_bytes=FETCH_BYTES,
                metrics_enabled=False,
            )
        self._heard_at = time.monotonic()
        if self._topics:
            client.subscribe(self._topics, listener=self._flags)
        if self._manual:
            self._assign(client)
        return client

    def _join_again(self) -> None:
        lost = self.assignment()
        self._flags = _Flags()
        self._refused = 0
        self._flags.on_partitions_lost(lost)
        old = self._connection.drop()
        if old is not None:
            threading.Thread(
                target=_close, args=(old, self._timeouts.request_ms), name="kafka-close", daemon=True
            ).start()

    def _assign(self, client: KafkaConsumer) -> None:
        partitions = [KafkaPartition(*p) for p in self._manual]
        client.assign(partitions)
        if self._start == "earliest":
            client.seek_to_beginning(*partitions)
        else:
            client.seek_to_end(*partitions)

    @staticmethod
    def _put_back(client: KafkaConsumer, batches: Mapping[KafkaPartition, list[Any]]) -> None:
        """Records that came together with a change of assignment are read again once it was taken."""
        owned = client.assignment()
        for partition, batch in batches.items():
            if partition in owned:
                client.seek(partition, batch[0].offset)

    def _without_held(
        self, client: KafkaConsumer, batches: Mapping[KafkaPartition, list[Any]]
    ) -> dict[KafkaPartition, list[Any]]:
        """*batches* without those of held partitions, which are read again."""
        delivered = {}
        for partition, batch in batches.items():
            if (partition.topic, partition.partition) in self._held:
                client.seek(partition, batch[0].offset)
            else:
                delivered[partition] = batch
        return delivered

    def _probe(self, client: KafkaConsumer) -> None:
        """kafka-python does not report that brokers do not answer: ask once polls have stayed empty for a while."""
        if not self._silent and time.monotonic() - self._heard_at < self._timeouts.probe_after_s:
            return
        self._silent = True
        with mapped_errors():
            if partitions := client.assignment():
                client.end_offsets(list(partitions)[:1], timeout_ms=self._timeouts.request_ms)
            else:
                client.bootstrap(timeout_ms=self._timeouts.request_ms, refresh=True)
        self._heard()

    def _heard(self) -> None:
        self._heard_at = time.monotonic()
        self._silent = False


def _close(client: KafkaConsumer, timeout_ms: int) -> None:
    with suppress(kafka_errors.KafkaError, OSError):
        client.close(autocommit=False, timeout_ms=timeout_ms)
