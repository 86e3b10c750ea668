"""From a verdict to its answer: the records go to Kafka, or to the outbox where Kafka does not acknowledge, and then
the answer goes out.

A verdict is answered when the log has it or the disk has. One thread (``settle``) waits for both and writes to the
outbox all that is late together, so that one flush of the disk serves many requests.
"""

from __future__ import annotations

import queue

from centinela.clock import Clock
from centinela.codec import MAX_RECORD_BYTES
from centinela.errors import DependencyUnavailable, InvalidRecord
from centinela.kafka.port import Outgoing, Producer
from centinela.web.refusals import RequestRefused
from centinela_predictor.gateway import metrics
from centinela_predictor.gateway.kafka_link import Link
from centinela_predictor.gateway.messages import Plan
from centinela_predictor.gateway.outbox import Outbox
from centinela_predictor.gateway.verdict_book import Entry, VerdictBook

GROUP_PLANS = 1_000


class Dispatch:
    """Sends what was decided, and answers.

    Args:
        patience_s: Longest wait for Kafka's acknowledgement before a record goes to the outbox; at most half of what is
            left of the request's time.
    """

    def __init__(
        self, producer: Producer, outbox: Outbox, link: Link, book: VerdictBook, clock: Clock, patience_s: float
    ) -> None:
        self._producer, self._outbox, self._link, self._book, self._clock, self._patience_s = (
            producer,
            outbox,
            link,
            book,
            clock,
            patience_s,
        )
        self._sent: queue.SimpleQueue[Plan | None] = queue.SimpleQueue()

    def takes(self, count: int) -> bool:
        """Whether *count* new verdicts have a place to go."""
        return self._link.away is None or self._outbox.takes(count)

    def send(self, plan: Plan) -> None:
        """Hand on the records of *plan* that nobody has yet; ``settle`` answers."""
        waiting = [(entry, outgoing) for entry in plan.entries if (outgoing := entry.outgoing) is not None]
        try:
            for _, outgoing in waiting:
                _require_readable(outgoing)
            plan.direct = not waiting or self._link.direct()
            if plan.direct:
                self._send_now(waiting)
        except InvalidRecord as error:
            self._refuse(plan, error)
            return
        plan.patience_ends = self._clock.monotonic() + (
            min(self._patience_s, plan.call.deadline.left() / 2) if plan.direct else 0.0
        )
        self._sent.put(plan)

    def _send_now(self, waiting: list[tuple[Entry, Outgoing]]) -> None:
        try:
            for entry, outgoing in waiting:
                if entry.delivery is None:
                    entry.delivery = self._producer.send(outgoing)
        except DependencyUnavailable as error:
            self._link.lost(str(error))

    def settle(self) -> None:
        """Wait for acknowledgements and answer, until ``stop`` and all is answered; one thread runs this."""
        going_on = True
        while going_on and (first := self._sent.get()) is not None:
            plans = [first]
            while going_on and len(plans) < GROUP_PLANS and not self._sent.empty():
                if (plan := self._sent.get()) is None:
                    going_on = False
                else:
                    plans.append(plan)
            late: list[Plan] = []
            for plan in plans:
                if not self._arrived(plan, wait=not late):
                    late.append(plan)
            if late:
                self._keep(late)
            self._link.arrived(sum(not plan.direct for plan in plans))

    def stop(self) -> None:
        """End ``settle`` after what was sent so far."""
        self._sent.put(None)

    def _arrived(self, plan: Plan, wait: bool) -> bool:
        """Answer *plan* where the log, or the outbox, has all of it, by now or (*wait*) within its patience."""
        try:
            for entry in plan.entries:
                if entry.outgoing is None:
                    continue
                if entry.delivery is None:
                    return False
                entry.delivery.wait(max(0.0, plan.patience_ends - self._clock.monotonic()) if wait else 0.0)
                self._book.settle(entry)
                self._link.reached()
        except DependencyUnavailable as error:
            self._link.lost(str(error))
            return False
        except InvalidRecord as error:
            self._refuse(plan, error)
            return True
        self._answer(plan)
        return True

    def _keep(self, plans: list[Plan]) -> None:
        """Write what *plans* lack to the outbox, in one go where it all fits, and answer."""
        try:
            self._append(plans)
        except DependencyUnavailable as error:
            if len(plans) > 1:
                for plan in plans:
                    self._keep([plan])
                return
            self._drop(plans[0])
            plans[0].call.future.set_exception(error)
        else:
            for plan in plans:
                self._answer(plan)

    def _append(self, plans: list[Plan]) -> None:
        waiting = {
            entry.verdict.transaction_id: (entry, outgoing)
            for plan in plans
            for entry in plan.entries
            if (outgoing := entry.outgoing) is not None
        }
        for transaction_id, (entry, _) in waiting.items():
            if self._book.get(transaction_id) is not entry:
                raise DependencyUnavailable("the first attempt found no room in the outbox", dependency="kafka")
        self._outbox.append([(transaction_id, outgoing) for transaction_id, (_, outgoing) in waiting.items()])
        for entry, _ in waiting.values():
            self._book.stored(entry)
        metrics.OUTBOX_WRITTEN.inc(len(waiting))

    def _drop(self, plan: Plan) -> None:
        """Forget the verdicts of *plan* that are nowhere: the next attempt may decide anew."""
        for entry in plan.entries:
            if entry.outgoing is not None and entry.delivery is None:
                self._book.forget(entry)

    def _answer(self, plan: Plan) -> None:
        metrics.GATEWAY_REPEATED.inc(sum(plan.repeated))
        plan.call.future.set_result(plan.answers())

    def _refuse(self, plan: Plan, invalid: InvalidRecord) -> None:
        """The log will not take the records of *plan* that it does not have yet."""
        for entry in plan.entries:
            if entry.outgoing is not None:
                self._book.forget(entry)
        plan.call.future.set_exception(RequestRefused(413, invalid.reason, invalid.detail))


def _require_readable(outgoing: Outgoing) -> None:
    """Refuse a record that the stream would not read: with its verdict it is larger than the request was."""
    size = len(outgoing.value or b"")
    if size > MAX_RECORD_BYTES:
        raise InvalidRecord("too_large", f"the record has {size} bytes; at most {MAX_RECORD_BYTES}")
