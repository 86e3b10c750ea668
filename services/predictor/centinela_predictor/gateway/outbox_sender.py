"""From the outbox to Kafka, in order, as soon as Kafka is available."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import structlog

from centinela.clock import Clock
from centinela.codec import Decoder
from centinela.errors import DependencyUnavailable, InvalidRecord
from centinela.events import TransactionReceived
from centinela.kafka.port import Delivery, Producer
from centinela.liveness.retry import Backoff
from centinela_predictor.gateway import metrics
from centinela_predictor.gateway.kafka_link import KafkaLink
from centinela_predictor.gateway.outbox import Outbox, OutboxFull, StoredRecord
from centinela_predictor.gateway.verdict_cache import CachedVerdict, VerdictCache, gateway_verdict

_log = structlog.get_logger(__name__)
BATCH = 500
CHECK_INTERVAL_S = 0.5
WAIT_SLICE_S = 1.0


def restore(outbox: Outbox, cache: VerdictCache) -> int:
    """Put the verdicts of *outbox* into *cache*, so that a retry gets them. How many records there are.

    Raises:
        OutboxUnusable: A record is damaged.
    """
    decode = Decoder(TransactionReceived).decode
    stored = outbox.oldest(len(outbox))
    for row in stored:
        if (verdict := gateway_verdict(decode(row.outgoing.value))) is not None:
            cache.mark_stored(cache.add(CachedVerdict(verdict, row.outgoing)))
    return len(stored)


class OutboxSender:
    """Sends what waits in *outbox*, oldest first, and removes what Kafka acknowledged or the log already has.

    After a failure one record is tried before the next batch, so that an outage does not fill the producer's queue with
    copies.

    Args:
        closing: Set when nothing is appended any more: then what can be sent is sent, and ``run`` ends at the first
            failure.
    """

    def __init__(
        self,
        outbox: Outbox,
        producer: Producer,
        link: KafkaLink,
        cache: VerdictCache,
        clock: Clock,
        closing: threading.Event,
    ) -> None:
        self._outbox = outbox
        self._producer = producer
        self._link = link
        self._cache = cache
        self._clock = clock
        self._closing = closing
        self._backoff = Backoff(closing, max_s=2.0)

    def run(self) -> None:
        """Send until *closing* and nothing more can be sent; one thread runs this.

        Raises:
            OutboxUnusable: A record is damaged.
        """
        limit = 1
        while True:
            self._outbox.changed.clear()
            if not (stored := self._outbox.oldest(limit)):
                if self._closing.is_set():
                    return
                self._outbox.changed.wait(CHECK_INTERVAL_S)
            elif self._deliver(stored):
                limit = BATCH
                self._backoff.reset()
                self._link.up()
            elif self._closing.is_set():
                return
            else:
                limit = 1
                self._backoff.wait()

    def _deliver(self, stored: Sequence[StoredRecord]) -> bool:
        """Whether all of *stored* has left the outbox."""
        delivered: list[StoredRecord] = []
        refused = 0
        try:
            deliveries = [self._send(row) for row in stored]
            for row, delivery in zip(stored, deliveries, strict=True):
                try:
                    if not self._acknowledged(row, delivery):
                        break
                    delivered.append(row)
                except InvalidRecord as error:
                    refused += 1
                    self._set_aside(row, error)
            self._outbox.remove(delivered)
        except DependencyUnavailable as error:
            if not isinstance(error, OutboxFull):
                self._link.down(str(error))
            return False
        for row in delivered:
            if (cached := self._cache.get(row.transaction_id)) is not None:
                self._cache.confirm(cached)
        metrics.OUTBOX_DELIVERED.inc(len(delivered))
        return len(delivered) + refused == len(stored)

    def _send(self, row: StoredRecord) -> Delivery | None:
        """The delivery of *row* to Kafka: the one already under way, or a new one; None where the log has it."""
        cached = self._cache.get(row.transaction_id)
        if cached is None:
            return self._producer.send(row.outgoing)
        if not cached.pending:
            return None
        if cached.delivery is None:
            cached.delivery = self._producer.send(row.outgoing)
        return cached.delivery

    def _set_aside(self, row: StoredRecord, error: InvalidRecord) -> None:
        self._outbox.set_aside(row, str(error))
        metrics.OUTBOX_SET_ASIDE.inc()
        _log.error("record.set_aside", transaction_id=row.transaction_id, reason=error.reason, detail=error.detail)

    def _acknowledged(self, row: StoredRecord, delivery: Delivery | None) -> bool:
        if delivery is None:
            return True
        while True:
            started = self._clock.monotonic()
            try:
                delivery.wait(WAIT_SLICE_S)
                return True
            except DependencyUnavailable as error:
                self._link.down(str(error))
                under_way = self._clock.monotonic() - started >= 0.9 * WAIT_SLICE_S
                if under_way and not self._closing.is_set():
                    continue
                if not under_way and (cached := self._cache.get(row.transaction_id)) is not None:
                    cached.delivery = None
                return False
