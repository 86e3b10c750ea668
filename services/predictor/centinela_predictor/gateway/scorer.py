"""The gateway's core: requests in, verdicts out once the log has them.

One worker thread takes what waits, decides on it in one go and hands the records on (``Dispatch``). Because a single
thread decides, two requests with one transaction id can never get two verdicts.
"""

from __future__ import annotations

import queue
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import datetime
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from centinela.clock import Clock
from centinela.errors import DependencyUnavailable
from centinela.events import TransactionReceived, Verdict, encode
from centinela.features.layout import FeatureLayout
from centinela.kafka.headers import event_headers, event_source
from centinela.kafka.port import Outgoing
from centinela.topics import TRANSACTIONS
from centinela.web.backpressure import Deadline, overloaded
from centinela.web.middleware import REQUEST_ID
from centinela.web.refusals import RequestRefused
from centinela_predictor.gateway.delivery import Dispatch
from centinela_predictor.gateway.messages import Answer, Call, Plan
from centinela_predictor.gateway.outbox import OutboxFull
from centinela_predictor.gateway.requests import PredictRequest
from centinela_predictor.gateway.verdict_book import Entry, GivenVerdict, VerdictBook, check_same
from centinela_predictor.models import metrics
from centinela_predictor.models.scoring import ScoringCore

GROUP_ROWS = 1_000
SOURCE = event_source("predictor", "gateway")


class Features(Protocol):
    """Where the gateway's features come from: the state replica, or a fake."""

    layout: FeatureLayout

    def features(self, transactions: list[TransactionReceived]) -> NDArray[np.float64]:
        """The rows of *transactions*, shape (n, len(layout.names)); the state stays as it is."""

    def seen(self, transactions: list[TransactionReceived]) -> list[bool]:
        """Whether each is in the log already."""


class NotReady(DependencyUnavailable):
    """The gateway waits for what it cannot decide without."""


class Gateway:
    """Decides on transactions, and hands them on with their verdict.

    Args:
        queue_limit: Calls that may wait; past it ``submit`` refuses.
        lacks: What stands between the gateway and a new verdict, by condition; one that was given can be given again
            all the same.
    """

    def __init__(
        self,
        core: ScoringCore,
        features: Features,
        dispatch: Dispatch,
        book: VerdictBook,
        clock: Clock,
        queue_limit: int,
        lacks: Callable[[], Mapping[str, str]],
    ) -> None:
        self._core, self._features, self._dispatch, self._book, self._clock = core, features, dispatch, book, clock
        self._queue_limit, self._lacks = queue_limit, lacks
        self._waiting: queue.SimpleQueue[Call | None] = queue.SimpleQueue()

    def submit(
        self, requests: list[PredictRequest], traceparent: str, request_id: str, deadline: Deadline
    ) -> Future[list[Answer]]:
        """Queue *requests*; the answers come in their order, all or none.

        The future raises ``RequestRefused`` (409, 413, 504) or ``DependencyUnavailable``.

        Raises:
            RequestRefused: 429, too many requests wait already.
        """
        if self._waiting.qsize() >= self._queue_limit:
            raise overloaded(f"{self._queue_limit} requests wait, and no more are taken")
        call = Call(requests, traceparent, request_id, deadline)
        self._waiting.put(call)
        return call.future

    def work(self) -> None:
        """Decide and send until ``stop``; one thread runs this."""
        while calls := self._take():
            self.serve(calls)
        self._dispatch.stop()

    def stop(self) -> None:
        """Finish what waits, then end ``work`` and the dispatch."""
        self._waiting.put(None)

    def _take(self) -> list[Call]:
        calls: list[Call] = []
        rows = 0
        while rows < GROUP_ROWS:
            try:
                call = self._waiting.get(block=not calls)
            except queue.Empty:
                break
            if call is None:
                if calls:
                    self._waiting.put(None)
                break
            if not call.future.set_running_or_notify_cancel():
                continue
            if call.deadline.left() == 0.0:
                call.future.set_exception(call.deadline.exceeded())
            else:
                calls.append(call)
                rows += len(call.requests)
        return calls

    def serve(self, calls: list[Call]) -> None:
        """Decide on *calls* together and send; a call that makes the deciding fail fails alone."""
        now = self._clock.now()
        fresh: dict[str, tuple[TransactionReceived, Call]] = {}
        entries: dict[str, Entry] = {}
        plans = [plan for call in calls if (plan := self._plan(call, now, fresh, entries))]
        try:
            decided = self._decide(list(fresh.values()), now)
        except Exception as error:
            for plan in plans:
                if len(plans) == 1:
                    plan.call.future.set_exception(error)
                else:
                    self.serve([plan.call])
            return
        entries |= {transaction_id: self._book.add(entry) for transaction_id, entry in decided.items()}
        for plan in plans:
            plan.entries = [entries[transaction_id] for transaction_id in plan.ids]
            self._dispatch.send(plan)

    def _plan(
        self, call: Call, now: datetime, fresh: dict[str, tuple[TransactionReceived, Call]], entries: dict[str, Entry]
    ) -> Plan | None:
        """What *call* needs: entries of the book, and transactions new to it (added to *fresh* only if none
        conflicts)."""
        new: dict[str, tuple[TransactionReceived, Call]] = {}
        plan = Plan(call)
        try:
            for request in call.requests:
                transaction_id = request.transaction_id or uuid.uuid4().hex
                known = self._book.get(transaction_id)
                seen = new.get(transaction_id) or fresh.get(transaction_id)
                if known:
                    check_same(known.verdict, request, self._features.layout)
                    entries[transaction_id] = known
                elif seen:
                    check_same(seen[0], request, self._features.layout)
                else:
                    new[transaction_id] = (_transaction(request, transaction_id, now), call)
                plan.ids.append(transaction_id)
                plan.repeated.append(bool(known or seen))
            if new:
                self._require_able(len(new))
                self._require_new([transaction for transaction, _ in new.values()])
        except (RequestRefused, DependencyUnavailable) as refused:
            call.future.set_exception(refused)
            return None
        fresh |= new
        return plan

    def _require_able(self, count: int) -> None:
        if lacks := self._lacks():
            raise NotReady("; ".join(f"{name}: {detail}" for name, detail in lacks.items()))
        if not self._dispatch.takes(count):
            raise OutboxFull("Kafka is away, and the outbox is full", dependency="kafka")

    def _require_new(self, transactions: list[TransactionReceived]) -> None:
        """Refuse what is in the log without a verdict known here: the stream's verdict stands, and another must not be
        given."""
        for transaction, seen in zip(transactions, self._features.seen(transactions), strict=True):
            if seen:
                detail = (
                    f"transaction {transaction.transaction_id} is in the log; its verdict is, or will be, in topic"
                    " predictions"
                )
                raise RequestRefused(409, "already_in_log", detail, field="transaction_id")

    def _decide(self, fresh: list[tuple[TransactionReceived, Call]], now: datetime) -> dict[str, Entry]:
        if not fresh:
            return {}
        transactions = [transaction for transaction, _ in fresh]
        layout = self._features.layout
        matrix = self._features.features(transactions)
        with metrics.SCORING_DURATION.time():
            batch = self._core.score(matrix, layout, [t.user_id or t.transaction_id for t in transactions])
        decided: dict[str, Entry] = {}
        for (transaction, call), verdict in zip(fresh, batch.verdicts(Verdict, "gateway", now), strict=True):
            with_verdict = msgspec.structs.replace(transaction, verdict=verdict)
            record = _record(with_verdict, call, now)
            decided[transaction.transaction_id] = Entry(GivenVerdict.of(transaction, verdict), record)
        metrics.count_decisions(batch)
        return decided


def _transaction(request: PredictRequest, transaction_id: str, now: datetime) -> TransactionReceived:
    return TransactionReceived(
        transaction_id=transaction_id,
        occurred_at=request.occurred_at or now,
        amount=request.amount,
        user_id=request.user_id,
        terminal_id=request.terminal_id,
        currency=request.currency,
        attributes=request.attributes,
    )


def _record(transaction: TransactionReceived, call: Call, now: datetime) -> Outgoing:
    headers = event_headers(
        event_type="TransactionReceived",
        event_id=transaction.transaction_id,
        source=SOURCE,
        time=now,
        traceparent=call.traceparent,
    )
    key = transaction.user_id or transaction.transaction_id
    return Outgoing(
        TRANSACTIONS.name, encode(transaction), key.encode(), (*headers, (REQUEST_ID, call.request_id.encode()))
    )
