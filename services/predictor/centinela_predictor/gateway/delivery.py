"""From a verdict to its answer: its record goes to Kafka, or to the outbox where Kafka does not acknowledge, and then
the answer goes out.

A verdict is answered once the log or the disk has it. One thread (``work``) waits for both and writes all late records
to the outbox together, so that one flush of the disk serves many requests.
"""

from __future__ import annotations

import queue

from centinela.clock import Clock
from centinela.codec import MAX_RECORD_BYTES
from centinela.errors import DependencyUnavailable, InvalidRecord
from centinela.kafka.port import Outgoing, Producer
from centinela.web.refusals import RequestRefused
from centinela_predictor.gateway import metrics
from centinela_predictor.gateway.kafka_link import KAFKA, KafkaLink
from centinela_predictor.gateway.messages import PreparedAnswer
from centinela_predictor.gateway.outbox import Outbox
from centinela_predictor.gateway.verdict_cache import CachedVerdict, VerdictCache

MAX_GROUP = 1_000
"""Most answers that one flush of the outbox covers."""


class VerdictDelivery:
    """Sends what was decided, and answers.

    Args:
        patience_s: Longest wait for Kafka's acknowledgement before a record goes to the outbox; at most half of the
            time that the request has left.
    """

    def __init__(
        self,
        producer: Producer,
        outbox: Outbox,
        link: KafkaLink,
        cache: VerdictCache,
        clock: Clock,
        patience_s: float,
    ) -> None:
        self._producer = producer
        self._outbox = outbox
        self._link = link
        self._cache = cache
        self._clock = clock
        self._patience_s = patience_s
        self._sent: queue.SimpleQueue[PreparedAnswer | None] = queue.SimpleQueue()

    def has_room(self, count: int) -> bool:
        """Whether *count* new verdicts can be delivered."""
        return self._link.outage is None or self._outbox.has_room(count)

    def send(self, prepared: PreparedAnswer) -> None:
        """Send the records of *prepared* that neither log nor outbox has; ``work`` answers."""
        unsaved = [(cached, outgoing) for cached in prepared.verdicts if (outgoing := cached.outgoing) is not None]
        try:
            for _, outgoing in unsaved:
                _require_readable(outgoing)
            prepared.direct = not unsaved or self._link.direct()
            if prepared.direct:
                self._send_directly(unsaved)
        except InvalidRecord as error:
            self._refuse(prepared, error)
            return
        prepared.patience_ends = self._clock.monotonic() + (
            min(self._patience_s, prepared.call.deadline.left() / 2) if prepared.direct else 0.0
        )
        self._sent.put(prepared)

    def work(self) -> None:
        """Wait for acknowledgements and answer, until ``stop`` and everything is answered; one thread runs this."""
        running = True
        while running and (first := self._sent.get()) is not None:
            group = [first]
            while running and len(group) < MAX_GROUP and not self._sent.empty():
                if (prepared := self._sent.get()) is None:
                    running = False
                else:
                    group.append(prepared)
            late: list[PreparedAnswer] = []
            for prepared in group:
                if not self._acknowledged(prepared, wait=not late):
                    late.append(prepared)
            if late:
                self._store(late)
            self._link.settled(sum(not prepared.direct for prepared in group))

    def stop(self) -> None:
        """End ``work`` after what was sent so far."""
        self._sent.put(None)

    def _send_directly(self, unsaved: list[tuple[CachedVerdict, Outgoing]]) -> None:
        try:
            for cached, outgoing in unsaved:
                if cached.delivery is None:
                    cached.delivery = self._producer.send(outgoing)
        except DependencyUnavailable as error:
            self._link.down(str(error))

    def _acknowledged(self, prepared: PreparedAnswer, wait: bool) -> bool:
        """Answer *prepared* where the log or the outbox has all of it, now or (*wait*) within its patience."""
        try:
            for cached in prepared.verdicts:
                if cached.outgoing is None:
                    continue
                if cached.delivery is None:
                    return False
                cached.delivery.wait(max(0.0, prepared.patience_ends - self._clock.monotonic()) if wait else 0.0)
                self._cache.confirm(cached)
                self._link.up()
        except DependencyUnavailable as error:
            self._link.down(str(error))
            return False
        except InvalidRecord as error:
            self._refuse(prepared, error)
            return True
        self._answer(prepared)
        return True

    def _store(self, group: list[PreparedAnswer]) -> None:
        """Write what *group* lacks to the outbox, at once where all of it fits, and answer."""
        try:
            self._append(group)
        except DependencyUnavailable as error:
            if len(group) > 1:
                for prepared in group:
                    self._store([prepared])
                return
            [prepared] = group
            self._drop(prepared)
            prepared.call.future.set_exception(error)
        else:
            for prepared in group:
                self._answer(prepared)

    def _append(self, group: list[PreparedAnswer]) -> None:
        unsaved = {
            cached.verdict.transaction_id: (cached, outgoing)
            for prepared in group
            for cached in prepared.verdicts
            if (outgoing := cached.outgoing) is not None
        }
        for transaction_id, (cached, _) in unsaved.items():
            if self._cache.get(transaction_id) is not cached:
                raise DependencyUnavailable("the first attempt found no room in the outbox", dependency=KAFKA)
        self._outbox.append([(transaction_id, outgoing) for transaction_id, (_, outgoing) in unsaved.items()])
        for cached, _ in unsaved.values():
            self._cache.mark_stored(cached)
        metrics.OUTBOX_WRITTEN.inc(len(unsaved))

    def _drop(self, prepared: PreparedAnswer) -> None:
        """Evict the verdicts of *prepared* that are saved nowhere: the next attempt may decide again."""
        for cached in prepared.verdicts:
            if cached.outgoing is not None and cached.delivery is None:
                self._cache.evict(cached)

    def _answer(self, prepared: PreparedAnswer) -> None:
        metrics.GATEWAY_REPEATED.inc(sum(prepared.repeated))
        prepared.call.future.set_result(prepared.answers())

    def _refuse(self, prepared: PreparedAnswer, invalid: InvalidRecord) -> None:
        """The log will never take the records of *prepared* that it does not have yet."""
        for cached in prepared.verdicts:
            if cached.outgoing is not None:
                self._cache.evict(cached)
        prepared.call.future.set_exception(RequestRefused(413, invalid.reason, invalid.detail))


def _require_readable(outgoing: Outgoing) -> None:
    """Refuse a record that the stream would not read: with its verdict it is larger than the request was."""
    size = len(outgoing.value or b"")
    if size > MAX_RECORD_BYTES:
        raise InvalidRecord("too_large", f"the record has {size} bytes; at most {MAX_RECORD_BYTES}")
