"""From the outbox to Kafka, in order, once Kafka is there."""

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
from centinela_predictor.gateway.kafka_link import Link
from centinela_predictor.gateway.outbox import Kept, Outbox, OutboxFull
from centinela_predictor.gateway.verdict_book import Entry, VerdictBook, adopted

_log = structlog.get_logger()
BATCH = 500
LOOKS_EVERY_S = 0.5
SLICE_S = 1.0


def remember(outbox: Outbox, book: VerdictBook) -> int:
    """Tell *book* of the verdicts in *outbox*: a retry gets them. How many there are.

    Raises:
        OutboxUnusable: A record is damaged.
    """
    decode = Decoder(TransactionReceived).decode
    kept = outbox.oldest(len(outbox))
    for row in kept:
        if (verdict := adopted(decode(row.outgoing.value))) is not None:
            book.stored(book.add(Entry(verdict, row.outgoing)))
    return len(kept)


class OutboxDrain:
    """Sends what waits in *outbox*, oldest first, and forgets what Kafka acknowledged or the log is known to have.

    After a failure one record is tried before the next batch, so that an outage does not fill the producer's queue with
    copies.

    Args:
        closing: Set when nothing is appended any more: then what can be sent is, and ``run`` ends at the first failure.
    """

    def __init__(
        self, outbox: Outbox, producer: Producer, link: Link, book: VerdictBook, clock: Clock, closing: threading.Event
    ) -> None:
        self._outbox, self._producer, self._link, self._book, self._clock, self._closing = (
            outbox,
            producer,
            link,
            book,
            clock,
            closing,
        )
        self._backoff = Backoff(closing, max_s=2.0)

    def run(self) -> None:
        """Drain until *closing* and nothing more can be done; one thread runs this.

        Raises:
            OutboxUnusable: A record is damaged.
        """
        limit = 1
        while True:
            self._outbox.changed.clear()
            if not (kept := self._outbox.oldest(limit)):
                if self._closing.is_set():
                    return
                self._outbox.changed.wait(LOOKS_EVERY_S)
            elif self._deliver(kept):
                limit = BATCH
                self._backoff.reset()
                self._link.reached()
            elif self._closing.is_set():
                return
            else:
                limit = 1
                self._backoff.wait()

    def _deliver(self, kept: Sequence[Kept]) -> bool:
        """Whether all of *kept* is out of the way."""
        try:
            ways = [self._send(row) for row in kept]
            gone, refused = [], 0
            for row, delivery in zip(kept, ways, strict=True):
                try:
                    if not self._acknowledged(row, delivery):
                        break
                    gone.append(row)
                except InvalidRecord as error:
                    refused += 1
                    self._set_aside(row, error)
            self._outbox.remove(gone)
        except DependencyUnavailable as error:
            if not isinstance(error, OutboxFull):
                self._link.lost(str(error))
            return False
        for row in gone:
            if (entry := self._book.get(row.transaction_id)) is not None:
                self._book.settle(entry)
        metrics.OUTBOX_DELIVERED.inc(len(gone))
        return len(gone) + refused == len(kept)

    def _send(self, row: Kept) -> Delivery | None:
        """The way of *row* to Kafka: the one that it is on already, or a new one; None where the log has it."""
        entry = self._book.get(row.transaction_id)
        if entry is None:
            return self._producer.send(row.outgoing)
        if not entry.pending:
            return None
        if entry.delivery is None:
            entry.delivery = self._producer.send(row.outgoing)
        return entry.delivery

    def _set_aside(self, row: Kept, error: InvalidRecord) -> None:
        self._outbox.set_aside(row, str(error))
        metrics.OUTBOX_SET_ASIDE.inc()
        _log.error("record.set_aside", transaction_id=row.transaction_id, reason=error.reason, detail=error.detail)

    def _acknowledged(self, row: Kept, delivery: Delivery | None) -> bool:
        if delivery is None:
            return True
        while True:
            began = self._clock.monotonic()
            try:
                delivery.wait(SLICE_S)
                return True
            except DependencyUnavailable as error:
                self._link.lost(str(error))
                under_way = self._clock.monotonic() - began >= 0.9 * SLICE_S
                if under_way and not self._closing.is_set():
                    continue
                if not under_way and (entry := self._book.get(row.transaction_id)) is not None:
                    entry.delivery = None
                return False
