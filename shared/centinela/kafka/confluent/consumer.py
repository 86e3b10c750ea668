"""The port's consumer on confluent-kafka (librdkafka); producers: ``producers``."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, KafkaException
from confluent_kafka import Consumer as RdConsumer
from confluent_kafka import TopicPartition as RdPartition

from centinela.errors import AccessRefused, DependencyUnavailable, TransactionAborted
from centinela.kafka.access import READERS, Access
from centinela.kafka.confluent.common import LOG, MISSING, common_config, mapped_errors, port_error, silence
from centinela.kafka.confluent.headers import given_headers, readable_headers
from centinela.kafka.port import Rebalance, Record, TopicPartition
from centinela.kafka.refusals import REFUSALS, no_answer
from centinela.kafka.timeouts import FETCH_BYTES, TIMEOUTS, KafkaTimeouts
from centinela.liveness.deadline import DeadlineExceeded, call_with_deadline

_new = tuple.__new__
"""Makes a ``Record`` at half the cost of calling it; that happens a hundred thousand times a second here."""
_QUEUED_RECORDS = 5_000
"""librdkafka fetches nothing more while its queue, which all partitions share, has as many: a record of one partition
waits behind that much of a backlog of another."""


class ConfluentConsumer:
    """``Consumer`` of the port; see there for what each call promises.

    New partitions are paused inside librdkafka until their assignment was taken. Closing in the middle of a rebalance
    can block librdkafka for good (its issues 4527, 4884), so ``close`` has a deadline.
    """

    def __init__(
        self,
        brokers: str | Access,
        group: str | None,
        start: Literal["earliest", "latest"] = "earliest",
        instance_id: str | None = None,
        timeouts: KafkaTimeouts = TIMEOUTS,
        client: Callable[[dict[str, Any]], RdConsumer] = RdConsumer,
    ) -> None:
        self._group = group
        self._start = start
        self._timeouts = timeouts
        config = common_config(brokers, timeouts) | {
            "group.id": group or READERS,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": start,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "partition.assignment.strategy": "cooperative-sticky",
            "allow.auto.create.topics": False,
            "fetch.wait.max.ms": 200,
            "max.partition.fetch.bytes": FETCH_BYTES,
            "queued.min.messages": _QUEUED_RECORDS,
            "fetch.error.backoff.ms": 20,
            "session.timeout.ms": int(timeouts.session_s * 1000),
            "heartbeat.interval.ms": int(timeouts.heartbeat_s * 1000),
            "max.poll.interval.ms": int(timeouts.max_poll_s * 1000),
            "error_cb": self._on_error,
        }
        if instance_id is not None:
            config["group.instance.id"] = instance_id
        self._client = client(config)
        self._owned: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._positions: dict[TopicPartition, int] = {}
        self._assigned: set[TopicPartition] = set()
        self._revoked: set[TopicPartition] = set()
        self._lost: set[TopicPartition] = set()
        self._manual_start: dict[TopicPartition, int] | None = None
        self._heard_at = time.monotonic()
        self._silent = False
        self._closed = False
        self._failure: Exception | None = None

    def subscribe(self, topics: Collection[str]) -> None:
        with mapped_errors():
            self._client.subscribe(
                list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        start = OFFSET_BEGINNING if self._start == "earliest" else OFFSET_END
        self._owned = set(partitions)
        self._positions = {}
        self._paused = set()
        self._manual_start = dict.fromkeys(partitions, start)

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        failure = self._failure
        self._failure = None
        if failure is not None:
            raise failure
        self._begin_manual()
        deadline = time.monotonic() + timeout_s
        records: list[Record] = []
        while not self._changed:
            with mapped_errors():
                first = self._client.poll(max(0.0, deadline - time.monotonic()))
                messages = [first] if first is not None else []
                if first is not None and max_records > 1 and not self._changed:
                    messages += self._client.consume(max_records - 1, 0)
            self._take_messages(messages, records)
            if self._changed:
                self._put_back(records)
                return []
            if records:
                self._heard()
                return records
            if self._failure is not None:
                return self.poll(timeout_s, max_records)
            if time.monotonic() >= deadline:
                break
        if not self._changed:
            self._probe()
        return []

    def take_rebalance(self) -> Rebalance | None:
        if not self._changed:
            return None
        change = Rebalance(frozenset(self._assigned), frozenset(self._revoked), frozenset(self._lost))
        self._client.resume([RdPartition(*p) for p in self._assigned])
        self._assigned = set()
        self._revoked = set()
        self._lost = set()
        return change

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self._owned)

    def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        if self._group is None or not partitions:
            return dict.fromkeys(partitions)
        with mapped_errors():
            committed = self._client.committed([RdPartition(*p) for p in partitions], timeout=self._timeouts.request_s)
            for partition in committed:
                if partition.error is not None:
                    raise KafkaException(partition.error)
        return {TopicPartition(p.topic, p.partition): p.offset if p.offset >= 0 else None for p in committed}

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {p: self._watermarks(p)[0] for p in partitions}

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {p: self._watermarks(p)[1] for p in partitions}

    def position(self, partition: TopicPartition) -> int:
        if (position := self._positions.get(partition)) is not None:
            return position
        committed = None if self._manual_start is not None else self.committed([partition])[partition]
        if committed is None:
            committed = self._watermarks(partition)[0 if self._start == "earliest" else 1]
        return committed

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if self._manual_start is not None and partition in self._manual_start:
            self._manual_start[partition] = offset
        else:
            self._seek(RdPartition(partition.topic, partition.partition, offset))
        self._positions[partition] = offset

    def hold(self, offsets: Mapping[TopicPartition, int | None]) -> None:
        for partition, offset in offsets.items():
            if offset is not None:
                self.seek(partition, offset)
        self._paused.update(offsets)
        with mapped_errors():
            self._client.pause([RdPartition(*p) for p in offsets])

    def release(self, partitions: Collection[TopicPartition]) -> None:
        self._paused.difference_update(partitions)
        with mapped_errors():
            self._client.resume([RdPartition(*p) for p in partitions])

    def partitions_of(self, topic: str) -> frozenset[TopicPartition]:
        with mapped_errors(self._hear):
            metadata = self._client.list_topics(topic, timeout=self._timeouts.request_s).topics[topic]
            if metadata.error is not None and isinstance(refused := port_error(metadata.error), AccessRefused):
                raise refused
        return frozenset(TopicPartition(topic, n) for n in metadata.partitions)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        if not self._owned >= set(offsets):
            raise TransactionAborted("the partitions are no longer assigned to this consumer")
        with mapped_errors():
            committed = self._client.commit(
                offsets=[RdPartition(*p, offset) for p, offset in offsets.items()], asynchronous=False
            )
            for partition in committed:
                if partition.error is not None:
                    raise KafkaException(partition.error)

    def group_metadata(self) -> Any:
        """What the transactional producer of this client needs to commit for this member."""
        return self._client.consumer_group_metadata()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            call_with_deadline(self._client.close, 2 * self._timeouts.request_s, name="kafka-close")
        except DeadlineExceeded:
            LOG.warning("the consumer did not close in time; its group will miss it after the session time-out")
        self._owned = set()

    @property
    def _changed(self) -> bool:
        return bool(self._assigned or self._revoked or self._lost)

    def _begin_manual(self) -> None:
        if self._manual_start:
            with mapped_errors():
                self._client.assign([RdPartition(*p, offset) for p, offset in self._manual_start.items()])
            self._manual_start = {}

    def _take_messages(self, messages: list[Any], into: list[Record]) -> None:
        """An error is kept for the next poll: librdkafka does not deliver the records that came with it again."""
        ends: dict[tuple[str, int], int] = {}
        for message in messages:
            if (error := message.error()) is None:
                topic, number, offset = message.topic(), message.partition(), message.offset()
                try:
                    headers = given_headers(message)
                except SystemError:
                    headers = readable_headers(message)
                record = (
                    topic,
                    number,
                    offset,
                    message.key(),
                    message.value(),
                    tuple(headers) if headers else (),
                    message.timestamp()[1],
                )
                into.append(_new(Record, record))
                ends[topic, number] = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                ends[message.topic(), message.partition()] = message.offset()
                self._heard()
            elif error.code() == KafkaError._MAX_POLL_EXCEEDED:
                LOG.warning("the consumer did not poll in time and left its group: %s", error)
            elif error.code() in MISSING or not isinstance(port_error(error), DependencyUnavailable):
                self._failure = self._failure or port_error(error)
            else:
                self._silent = True
        for partition, end in ends.items():
            self._positions[TopicPartition(*partition)] = end

    def _put_back(self, records: list[Record]) -> None:
        """Records that came together with a change of assignment are read again once it was taken."""
        first: dict[TopicPartition, int] = {}
        for record in records:
            first.setdefault(TopicPartition(record.topic, record.partition), record.offset)
        for partition, offset in first.items():
            if partition in self._owned:
                self.seek(partition, offset)

    def _seek(self, target: RdPartition) -> None:
        """librdkafka cannot seek in a partition that was only just assigned: it is assigned again at the offset."""
        try:
            self._client.seek(target)
            return
        except KafkaException as error:
            if error.args[0].code() not in {KafkaError._STATE, KafkaError._UNKNOWN_PARTITION}:
                raise
        with mapped_errors():
            self._client.incremental_unassign([RdPartition(target.topic, target.partition)])
            self._client.incremental_assign([target])
            key = TopicPartition(target.topic, target.partition)
            if key in self._paused or key in self._assigned:
                self._client.pause([RdPartition(*key)])
            else:
                self._client.resume([RdPartition(*key)])

    def _watermarks(self, partition: TopicPartition) -> tuple[int, int]:
        with mapped_errors(self._hear):
            watermarks = self._client.get_watermark_offsets(RdPartition(*partition), timeout=self._timeouts.request_s)
        if watermarks is None:
            raise no_answer("Kafka does not report its offsets")
        return watermarks

    def _probe(self) -> None:
        """Ask the brokers for an answer when librdkafka has reported an error, or after a while of silence."""
        if self._silent or time.monotonic() - self._heard_at > 10 * self._timeouts.probe_after_s:
            self._silent = True
            if (refused := REFUSALS.recent()) is not None:
                raise refused
            with mapped_errors():
                self._client.list_topics("__consumer_offsets", timeout=self._timeouts.request_s)
            self._heard()

    def _heard(self) -> None:
        self._heard_at = time.monotonic()
        self._silent = False

    def _hear(self) -> None:
        """Let callbacks report why there was no answer, while no partition can deliver a record."""
        if not self._owned and (message := self._client.poll(0)) is not None:
            self._take_messages([message], [])

    def _on_error(self, error: KafkaError) -> None:
        if silence(error):
            self._silent = True
        else:
            LOG.warning("librdkafka: %s", error)

    def _on_assign(self, client: RdConsumer, partitions: list[RdPartition]) -> None:
        if self._closed:
            return
        client.incremental_assign(partitions)
        client.pause(partitions)
        new = {TopicPartition(p.topic, p.partition) for p in partitions}
        self._owned |= new
        self._assigned |= new
        self._paused -= new

    def _on_revoke(self, _client: RdConsumer, partitions: list[RdPartition]) -> None:
        self._gone(partitions, self._revoked)

    def _on_lost(self, _client: RdConsumer, partitions: list[RdPartition]) -> None:
        self._gone(partitions, self._lost)

    def _gone(self, partitions: list[RdPartition], kind: set[TopicPartition]) -> None:
        gone = {TopicPartition(p.topic, p.partition) for p in partitions}
        kind |= gone
        self._owned -= gone
        self._assigned -= gone
        self._paused -= gone
        for partition in gone:
            self._positions.pop(partition, None)
