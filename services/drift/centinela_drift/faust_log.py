"""One Faust app that reads panes, labels and model events for ``DriftService``.

Offsets: the service's snapshots contain the next offset of every partition, and partitions are read from there, not
from the group's commits, which only make the lag visible. So nothing is lost or repeated when a record is acknowledged
but not in a snapshot, or in a snapshot but not committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, ClassVar, cast

import faust
import structlog
from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from centinela.clock import Clock
from centinela.errors import DependencyUnavailable
from centinela.kafka.access import Access, access
from centinela.kafka.connect import topic_admin
from centinela.kafka.port import Outgoing, Record, TopicPartition
from centinela.kafka.timeouts import TIMEOUTS
from centinela.liveness.dependency import DependencyState
from centinela.liveness.health import Health
from centinela.liveness.progress import PartitionProgress, Patience, Progress
from centinela.liveness.watchdog import Watchdog
from centinela.telemetry.metrics import CONSUMER_LAG
from centinela_drift.broker_liveness import BrokerLiveness
from centinela_drift.evaluator import Topics
from centinela_drift.records import read_any_header_name
from centinela_drift.service import DriftService
from centinela_drift.settings import DriftSettings

_log = structlog.get_logger(__name__)
REQUEST_TIMEOUT_S = 40.0
SESSION_TIMEOUT_S = 30.0
SEND_TIMEOUT_S = 30.0
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
POSITION_TIMEOUT_S = 5.0


def _credentials(brokers: Access) -> faust.SASLCredentials | faust.SSLCredentials | None:
    """The credentials of *brokers* in Faust's classes."""
    if brokers.mechanism is not None:
        return faust.SASLCredentials(
            username=brokers.user, password=brokers.password, mechanism=brokers.mechanism, ssl_context=brokers.context()
        )
    return faust.SSLCredentials(context=brokers.context()) if brokers.encrypted else None


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Reads committed transactions only, from the service's offsets."""

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        # Faust reads uncommitted records unless its own transactions are on; this flag chooses the isolation level.
        self.consumer.in_transaction = True
        try:
            return super()._create_worker_consumer(transport)
        finally:
            self.consumer.in_transaction = False

    def highwater(self, tp: TP) -> int:
        """The end up to which transactions are settled, by the newest fetch; -1 before the first.

        A request to the broker would wait behind the fetch that waits for records on the same connection.
        """
        end = self._ensure_consumer().last_stable_offset(tp)
        return -1 if end is None else int(end)

    def last_answer_s(self) -> float | None:
        """See ``_Consumer``."""
        consumer = self._ensure_consumer()
        answers = (consumer.last_poll_timestamp(tp) for tp in consumer.assignment())
        newest = max((answer for answer in answers if answer is not None), default=None)
        return None if newest is None else newest / 1000

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every assigned partition to the service's next offset."""
        assigned = self.assignment()
        if not assigned:
            return {}
        transport = cast(Transport, self.transport)
        begins, ends = await self.earliest_offsets(*assigned), await self.highwaters(*assigned)
        starts = transport.starts({tp: (begins[tp], ends[tp]) for tp in assigned})
        await self.seek_wait(starts)
        return starts


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _new_offset(self, tp: TP) -> int | None:
        """The offset to commit: the next one of the service.

        Faust's own count passes only one transaction marker a commit, so it falls behind and keeps every offset in
        between.
        """
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        self._gap.pop(tp, None)
        return cast(Transport, self.transport).service.handler.offsets.get(TopicPartition(tp.topic, tp.partition))

    def last_read(self, tp: TP) -> int:
        """The offset of the last record that was handed to the agent, which may not have applied it yet."""
        return self._read_offset.get(tp) or 0

    def last_answer_s(self) -> float | None:
        """When a fetch was last answered, seconds since 1970; None before the first, and while nothing is assigned."""
        return cast(_ConsumerThread, self._thread).last_answer_s()


class _Producer(driver.Producer):
    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}


class Transport(driver.Transport):
    """Faust's aiokafka transport with the consumer and producer above."""

    Consumer: ClassVar[type[driver.Consumer]] = _Consumer
    Producer: ClassVar[type[driver.Producer]] = _Producer
    service: DriftService
    health: Health

    def starts(self, bounds: Mapping[TP, tuple[int, int]]) -> dict[TP, int]:
        """Where to read each partition from, given its first and end offset: the service's next offset, else the
        beginning.

        An offset past the end means that the topic was created again: it is dropped, or every new record would count as
        applied before.
        """
        offsets = self.service.handler.offsets
        starts = {}
        for tp, (begin, end) in bounds.items():
            partition = TopicPartition(tp.topic, tp.partition)
            if offsets.get(partition, 0) > end:
                _log.error(
                    "partition.recreated",
                    topic=tp.topic,
                    partition=tp.partition,
                    offset=offsets.pop(partition),
                    end=end,
                )
            starts[tp] = max(begin, offsets.get(partition, 0))
        self.health.met("kafka")
        _log.info("partitions.assigned", starts={f"{tp.topic}-{tp.partition}": offset for tp, offset in starts.items()})
        return starts


class FaustLog:
    """``EventLog`` on a Faust app.

    The client reconnects by itself and logs that dozens of times a second; its logger is silenced, and an outage is
    logged once, by ``BrokerLiveness``.

    Args:
        settings: Brokers and group.
        topics: Names of the topics; they must exist.
        service: Takes the records.
        health: Its condition ``kafka`` is met once partitions are assigned.

    Attributes:
        abandoned: The client could not be stopped, because the brokers do not answer; its threads are still waiting.
    """

    def __init__(
        self, settings: DriftSettings, topics: Topics, service: DriftService, health: Health, clock: Clock
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._service = service
        self._health = health
        self._clock = clock
        self._patience: Patience = settings.patience
        read_any_header_name()
        for name, level in (("faust", "WARNING"), ("mode", "WARNING"), ("aiokafka", "CRITICAL")):
            logging.getLogger(name).setLevel(level)
        brokers = [f"aiokafka://{broker.strip()}" for broker in settings.kafka_bootstrap_servers.split(",")]
        self._app = faust.App(
            settings.drift_group,
            broker=";".join(brokers),
            datadir=str(settings.data_dir / "drift" / "faust"),
            store="memory://",
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            worker_redirect_stdouts=False,
            stream_wait_empty=False,
            stream_recovery_delay=0.0,
            consumer_auto_offset_reset="earliest",
            consumer_metadata_max_age_ms=int(TIMEOUTS.metadata_s * 1000),
            broker_request_timeout=REQUEST_TIMEOUT_S,
            broker_session_timeout=SESSION_TIMEOUT_S,
            broker_heartbeat_interval=3.0,
            consumer_group_instance_id=f"{settings.drift_group}-0",
            broker_commit_interval=5.0,
            producer_compression_type="zstd",
            broker_credentials=_credentials(access(settings)),
        )
        self._app.transport = transport = Transport(self._app.conf.broker_consumer, self._app)
        self._app.producer_transport = transport
        transport.service = service
        transport.health = health
        self._failure: asyncio.Future[None] | None = None
        self.abandoned = False
        self._declare_agent()

    async def run(self, stop: asyncio.Event) -> None:
        """Read until *stop*, then stop cleanly.

        Raises:
            DependencyUnavailable: The client does not recover, or the app crashed: the process must end and be
                restarted.
            DeadLetterFlood: See ``DriftService.take``.
        """
        self._failure = asyncio.get_running_loop().create_future()
        self._app.finalize()
        crashed: asyncio.Task[None] | None = None
        watch: asyncio.Task[None] | None = None
        try:
            await asyncio.wait_for(self._app.start(), START_TIMEOUT_S)
            worker = asyncio.create_task(self._service.run(self, stop), name="reports")
            crashed = asyncio.create_task(self._app.wait_until_stopped(), name="crash-watch")
            progress = Progress(self._patience.stuck_s, self._clock.monotonic())
            watch = asyncio.create_task(self._watch(progress), name="watch")
            with Watchdog("drift", progress, self._health, self._patience, clock=self._clock):
                await asyncio.wait({worker, crashed, watch, self._failure}, return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                watch.result()
            if self._failure.done():
                worker.cancel()
                self._failure.result()
            if not worker.done():
                worker.cancel()
                raise DependencyUnavailable(f"the Kafka client stopped: {self._app.crash_reason!r}")
            worker.result()
        except (KafkaError, TimeoutError) as error:
            raise DependencyUnavailable(f"Kafka: {type(error).__name__}: {error}") from error
        finally:
            for task in (watch, crashed):
                if task is not None:
                    task.cancel()
            await self._leave()

    async def _leave(self) -> None:
        """Stop the app; without brokers its last commit would wait forever, and nothing depends on it."""
        stopping = asyncio.create_task(self._app.stop(), name="leave")
        await asyncio.wait({stopping}, timeout=STOP_TIMEOUT_S)
        if stopping.done():
            stopping.result()
        else:
            self.abandoned = True
            _log.warning("kafka.abandoned")

    async def _watch(self, progress: Progress) -> None:
        """Check every second whether the brokers answer, and while they do, how far each partition is read."""
        liveness = BrokerLiveness(
            DependencyState("kafka", self._health, self._clock), lambda: asyncio.to_thread(self._brokers_answer)
        )
        checked_at = self._clock.monotonic()
        while True:
            await asyncio.sleep(1.0)
            now = self._clock.monotonic()
            elapsed_s = now - checked_at
            checked_at = now
            progress.beat(now)
            answered = cast(_Consumer, self._app.consumer).last_answer_s()
            age = None if answered is None else self._clock.now().timestamp() - answered
            if await liveness.check(age, elapsed_s):
                progress.observe(await self._partition_progress(), self._clock.monotonic())

    def _brokers_answer(self) -> bool:
        """Ask with a separate client."""
        admin = topic_admin(self._settings)
        try:
            admin.identify(self._topics.panes)
        except DependencyUnavailable:
            return False
        finally:
            admin.close()
        return True

    async def _partition_progress(self) -> dict[TopicPartition, PartitionProgress]:
        """The progress of each partition: its next offset, or the fetch position if all that was fetched is applied."""
        progress = {}
        for partition, end in (await self.ends()).items():
            taken = self._service.handler.offsets.get(partition, 0)
            if taken < end and cast(_Consumer, self._app.consumer).last_read(TP(*partition)) <= taken:
                with contextlib.suppress(TimeoutError):
                    taken = max(taken, await asyncio.wait_for(self.position(partition), POSITION_TIMEOUT_S))
            progress[partition] = PartitionProgress(taken, end)
            CONSUMER_LAG.labels(partition.topic, str(partition.partition)).set(progress[partition].lag)
        return progress

    async def send(self, record: Outgoing) -> None:
        producer = await self._app.maybe_start_producer()
        try:
            await asyncio.wait_for(
                producer.send_and_wait(
                    record.topic, record.key, record.value, record.partition, None, list(record.headers)
                ),
                SEND_TIMEOUT_S,
            )
        except (KafkaError, TimeoutError) as error:
            raise DependencyUnavailable(f"{record.topic} takes no records: {type(error).__name__}: {error}") from error

    async def ends(self) -> Mapping[TopicPartition, int]:
        consumer = self._app.consumer
        return {TopicPartition(tp.topic, tp.partition): consumer.highwater(tp) for tp in consumer.assignment()}

    async def position(self, partition: TopicPartition) -> int:
        return await self._app.consumer.position(TP(*partition)) or 0

    def pause(self, topics: Collection[str]) -> None:
        consumer = self._app.consumer
        consumer.pause_partitions({tp for tp in consumer.assignment() if tp.topic in topics})

    def resume(self) -> None:
        consumer = self._app.consumer
        consumer.resume_partitions(consumer.assignment())

    def _declare_agent(self) -> None:
        channel = self._app.topic(
            *self._topics.inputs, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )

        @self._app.agent(channel, name="drift")
        async def drift(stream: Any) -> None:
            # Faust acknowledges the record of an agent that raises, and continues with the next: no error may leave
            # this loop.
            events: AsyncIterator[Any] = stream.events()
            async for event in events:
                await self._take(event.message)

    async def _take(self, message: Any) -> None:
        failure = self._failure
        if failure is None or failure.done():
            return
        record = Record(
            message.topic,
            message.partition,
            message.offset,
            message.key,
            message.value,
            tuple(message.headers or ()),
            int((message.timestamp or 0) * 1000),
        )
        try:
            await self._service.take(record, self)
        except Exception as error:
            failure.set_exception(error)
