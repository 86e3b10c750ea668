"""The consumer loop: read a batch, hand it to the handler, commit what came out together with what was read.

``ConsumerLoop`` commits in Kafka transactions (each record takes effect exactly once); ``SinkLoop`` commits offsets
after the handler returned (at least once: its handler must be idempotent). Unknown exceptions pass through, and nothing
is committed: a bug must not drain a topic.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter

import structlog

from centinela.consuming.committer import Committer, PlainCommitter, ProducerStuck, TransactionalCommitter
from centinela.consuming.handler import Handler, Outcome, stateful
from centinela.consuming.options import LoopOptions
from centinela.consuming.outage import Outage
from centinela.consuming.partitions import Partitions
from centinela.deadletters.record import EXPECTED, dead_letter
from centinela.errors import CentinelaError, DependencyUnavailable, TransactionAborted
from centinela.kafka.port import Consumer, Producer, Record, TopicPartition, TransactionalProducer
from centinela.liveness.health import Health
from centinela.liveness.progress import Progress
from centinela.liveness.retry import Backoff
from centinela.liveness.watchdog import Watchdog
from centinela.telemetry.metrics import BATCH_DURATION, CONSUMER_LAG, CONSUMER_RECORDS

_log = structlog.get_logger(__name__)


class _Loop:
    """What both loops share.

    Args:
        topics: Topics to subscribe to; all must exist.
        health: Shows under ``kafka`` and ``handler`` what the loop waits for.
        stop: Ends ``run`` after the batch in hand is committed.
    """

    def __init__(
        self,
        consumer: Consumer,
        committer: Committer,
        handler: Handler,
        topics: Collection[str],
        health: Health,
        stop: threading.Event,
        options: LoopOptions,
    ) -> None:
        self._consumer = consumer
        self._committer = committer
        self._handler = stateful(handler)
        self._topics = list(topics)
        self._health = health
        self._stop = stop
        self._options = options
        self._batch = options.batch
        self._poll_timeout_s = options.poll_timeout_s
        self._clock = options.clock
        self._partitions = Partitions(consumer, self._handler, self._clock, options.defer_s)
        self._outage = Outage(health, stop, clock=self._clock)
        self._aborts = Backoff(stop)
        self._started = False
        self._can_commit = False
        self._dirty = False
        self._waiting = False
        self._unfinished = False
        self._active_at = self._clock.monotonic()
        self._lag_at = self._active_at
        self._progress = Progress(options.patience.stuck_s, self._active_at)
        self._uncommitted_since: float | None = None

    def run(self) -> None:
        """Work until the stop event; then leave the group in good order.

        Raises:
            ProducerFenced: Another process took over; end with a non-zero code.
            ProducerStuck: Nothing can be committed although the brokers answer; end with a non-zero code as well.
            DeadLetterFlood: Too many records are refused.
            Exception: Whatever else the handler raised.
        """
        self._progress.bind_to_thread()
        try:
            with Watchdog(
                self._options.service or "consumer",
                self._progress,
                self._health,
                self._options.patience,
                clock=self._clock,
            ):
                while not self._stop.is_set():
                    self.run_once()
            if not self._dirty:
                self._partitions.release()
        except CentinelaError as error:
            _log.error("consumer.failed", error=type(error).__name__, detail=str(error), topics=self._topics)
            raise
        finally:
            self.close()

    def run_once(self) -> bool:
        """One step: True where records were delivered. Waits while a dependency is unavailable, and rebuilds after an
        abort."""
        self._progress.beat(self._clock.monotonic())
        try:
            self._start()
            if self._dirty:
                self._committer.abort()
                self._partitions.rebuild()
                self._dirty = False
            return self._step()
        except DependencyUnavailable as error:
            self._unfinished = self._unfinished or self._dirty
            self._outage.failed(error)
            self._give_up_if_stuck(error)
            self._outage.back_off()
            self._active_at = self._clock.monotonic()
        except TransactionAborted as error:
            self._dirty = True
            _log.warning("transaction.aborted", detail=str(error))
            self._give_up_if_stuck(error)
            self._aborts.wait()
        return False

    def close(self) -> None:
        """Leave the group and release the clients, whatever state they are in."""
        for client in (self._committer, self._consumer):
            try:
                client.close()
            except CentinelaError as error:
                _log.warning("client.closed_badly", detail=str(error))

    def _start(self) -> None:
        if self._started:
            return
        for topic in self._topics:
            if not self._consumer.partitions_of(topic):
                raise DependencyUnavailable(
                    f"topic {topic} does not exist: run `centinela topics create`", dependency="kafka"
                )
        if not self._can_commit:  # a producer may be initialised only once
            self._committer.start()
            self._can_commit = True
        if self._options.carry_over is not None:
            self._options.carry_over(self._consumer, self._topics)
        self._consumer.subscribe(self._topics)
        self._started = True
        _log.info("consumer.started", topics=self._topics)

    def _step(self) -> bool:
        self._partitions.adopt()
        ready = self._ready()
        self._partitions.deliver(ready)
        self._partitions.resume_deferred()
        self._measure_lag()
        records = self._consumer.poll(self._poll_timeout_s, self._batch)
        if not self._unfinished:  # after a failed batch its commit shows that the outage is over, not that records come
            self._outage.answered("kafka")
        if (change := self._consumer.take_rebalance()) is not None:
            self._partitions.apply(change)
            return False
        if not ready:
            self._stop.wait(self._poll_timeout_s)
            return False
        if not records:
            self._tick()
            return False
        with self._progress.at_work(self._clock):
            self._process(records)
        return True

    def _ready(self) -> bool:
        ready = self._handler.ready()
        if ready:
            if self._waiting:
                _log.info("consumer.resumed", topics=self._topics)
            self._health.met("handler")
        else:
            self._health.wait_for("handler", self._handler.waiting_for)
            if not self._waiting:
                _log.info("consumer.waits", topics=self._topics, waiting_for=self._handler.waiting_for)
        self._waiting = not ready
        return ready

    def _process(self, records: Sequence[Record]) -> None:
        start = self._clock.monotonic()
        self._active_at = start
        replayed, fresh = self._partitions.split(records)
        self._dirty = True
        if replayed:
            self._handler.replay(replayed)
            self._partitions.delivered(replayed)
            CONSUMER_RECORDS.labels(replayed[0].topic, "replayed").inc(len(replayed))
        if fresh:
            self._commit(fresh, self._handler(fresh))
        self._dirty = False
        self._unfinished = False
        self._outage.over()
        self._aborts.reset()
        duration = self._clock.monotonic() - start
        BATCH_DURATION.labels(self._options.service).observe(duration)
        _log.debug("batch.committed", records=len(fresh), replayed=len(replayed), duration_s=round(duration, 4))

    def _tick(self) -> None:
        if self._clock.monotonic() - self._active_at < self._options.idle_s:
            return
        self._active_at = self._clock.monotonic()
        self._dirty = True
        outcome = self._handler.idle()
        if outcome is not None and (outcome.events or outcome.dead_letters):
            self._commit((), outcome)
        self._dirty = False
        self._unfinished = False
        self._outage.over()

    def _commit(self, records: Sequence[Record], outcome: Outcome) -> None:
        deferred = outcome.deferred
        done = _before(records, deferred) if deferred else records
        self._options.cap.check(len(done), sum(letter.reason not in EXPECTED for letter in outcome.dead_letters))
        offsets = self._partitions.delivered(done)
        now = self._clock.now()
        letters = [dead_letter(letter.record, letter.reason, letter.detail, at=now) for letter in outcome.dead_letters]
        if offsets or outcome.events or letters:
            if self._uncommitted_since is None:
                self._uncommitted_since = self._clock.monotonic()
            self._committer.commit([*outcome.events, *letters], offsets)
            self._uncommitted_since = None
            self._handler.on_committed(offsets)
        self._partitions.defer(deferred)
        self._count(done, len(records) - len(done), outcome)

    def _count(self, done: Sequence[Record], deferred: int, outcome: Outcome) -> None:
        processed = Counter(map(attrgetter("topic"), done))
        for letter in outcome.dead_letters:
            record = letter.record
            processed[record.topic] -= 1
            CONSUMER_RECORDS.labels(record.topic, "dead_lettered").inc()
            _log.warning(
                "record.dead_lettered",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                reason=letter.reason,
                detail=letter.detail,
            )
        topic = done[0].topic if done else self._topics[0]
        for name, count in outcome.counts.items():
            processed[topic] -= count
            CONSUMER_RECORDS.labels(topic, name).inc(count)
        if deferred:
            CONSUMER_RECORDS.labels(topic, "held").inc(deferred)
        for name, count in processed.items():
            CONSUMER_RECORDS.labels(name, "processed").inc(max(0, count))

    def _give_up_if_stuck(self, error: CentinelaError) -> None:
        """Stop waiting for a producer that has not been able to commit for ``stuck_s`` on brokers that answer the
        consumer."""
        since = self._uncommitted_since
        if since is None or self._clock.monotonic() - since <= self._options.patience.stuck_s:
            return
        try:
            self._consumer.end_offsets(list(self._partitions.owned or self._consumer.partitions_of(self._topics[0])))
        except DependencyUnavailable:
            self._uncommitted_since = None
            return
        raise ProducerStuck(
            f"no commit for {self._clock.monotonic() - since:.0f} s although the brokers answer: {error}"
        ) from error

    def _measure_lag(self) -> None:
        if (now := self._clock.monotonic()) - self._lag_at < self._options.lag_s:
            return
        self._lag_at = now
        partitions = self._partitions.progress()
        for partition, progress in partitions.items():
            CONSUMER_LAG.labels(partition.topic, str(partition.partition)).set(progress.lag)
        self._progress.observe(partitions, now)


def _before(records: Sequence[Record], deferred: Mapping[TopicPartition, int]) -> list[Record]:
    """Those of *records* that come before the deferred offset of their partition."""
    from_offset = {(topic, number): offset for (topic, number), offset in deferred.items()}
    return [r for r in records if r.offset < from_offset.get((r.topic, r.partition), r.offset + 1)]


class ConsumerLoop(_Loop):
    """Exactly once: records, dead letters and offsets of a batch in one Kafka transaction."""

    def __init__(
        self,
        consumer: Consumer,
        producer: TransactionalProducer,
        handler: Handler,
        *,
        topics: Collection[str],
        health: Health,
        stop: threading.Event,
        options: LoopOptions | None = None,
    ) -> None:
        committer = TransactionalCommitter(consumer, producer)
        super().__init__(consumer, committer, handler, topics, health, stop, options or LoopOptions())


class SinkLoop(_Loop):
    """At least once: the handler stores the batch, then its offsets are committed. *producer* writes dead letters."""

    def __init__(
        self,
        consumer: Consumer,
        producer: Producer | None,
        handler: Handler,
        *,
        topics: Collection[str],
        health: Health,
        stop: threading.Event,
        options: LoopOptions | None = None,
    ) -> None:
        committer = PlainCommitter(consumer, producer)
        super().__init__(consumer, committer, handler, topics, health, stop, options or LoopOptions())
