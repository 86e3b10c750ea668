"""The gateway's core: requests in, verdicts out once the log has them.

One worker thread takes the waiting requests, decides on them together and hands the records on (``VerdictDelivery``).
Because a single thread decides, two requests with one transaction id can never get two verdicts.
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
from centinela.events import PURCHASE, AttachedVerdict, TransactionReceived, encode
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.kafka.headers import event_headers, event_source
from centinela.kafka.port import Outgoing
from centinela.topics import TRANSACTIONS
from centinela.web.backpressure import Deadline, overloaded
from centinela.web.middleware import REQUEST_ID
from centinela.web.refusals import RequestRefused
from centinela_predictor.gateway.delivery import VerdictDelivery
from centinela_predictor.gateway.messages import Answer, PredictCall, PreparedAnswer
from centinela_predictor.gateway.outbox import OutboxFull
from centinela_predictor.gateway.requests import PredictRequest
from centinela_predictor.gateway.verdict_cache import CachedVerdict, GivenVerdict, VerdictCache, require_same
from centinela_predictor.models import metrics
from centinela_predictor.models.scoring import ScoringCore, not_scored

GROUP_ROWS = 1_000
SOURCE = event_source("predictor", "gateway")


class Features(Protocol):
    """Where the gateway's features come from: the state replica, or a fake."""

    layout: FeatureLayout
    currency: str
    """Of the amounts in the features."""

    def features(self, transactions: list[TransactionReceived]) -> NDArray[np.float64]:
        """The rows of *transactions*, shape (n, len(layout.names)); the state stays as it is."""

    def seen(self, transactions: list[TransactionReceived]) -> list[bool]:
        """Whether each is in the log already."""


class NotReady(DependencyUnavailable):
    """The gateway waits for what it cannot decide without."""


class Gateway:
    """Decides on transactions, and hands them on with their verdict.

    Args:
        queue_limit: Calls that may wait; beyond it ``submit`` refuses.
        missing: The conditions that a new verdict still needs, each with its reason; a verdict that was given before is
            given in any case.
    """

    def __init__(
        self,
        core: ScoringCore,
        features: Features,
        delivery: VerdictDelivery,
        cache: VerdictCache,
        clock: Clock,
        queue_limit: int,
        missing: Callable[[], Mapping[str, str]],
    ) -> None:
        self._core = core
        self._features = features
        self._delivery = delivery
        self._cache = cache
        self._clock = clock
        self._queue_limit = queue_limit
        self._missing = missing
        self._waiting: queue.SimpleQueue[PredictCall | None] = queue.SimpleQueue()

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
        call = PredictCall(requests, traceparent, request_id, deadline)
        self._waiting.put(call)
        return call.future

    def work(self) -> None:
        """Decide and send until ``stop``; one thread runs this."""
        while calls := self._take():
            self.serve(calls)
        self._delivery.stop()

    def stop(self) -> None:
        """Finish what waits, then end ``work`` and the delivery."""
        self._waiting.put(None)

    def _take(self) -> list[PredictCall]:
        calls: list[PredictCall] = []
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

    def serve(self, calls: list[PredictCall]) -> None:
        """Decide on *calls* together and send; a call for which deciding fails does not affect the others."""
        now = self._clock.now()
        new: dict[str, tuple[TransactionReceived, PredictCall]] = {}
        verdicts: dict[str, CachedVerdict] = {}
        answers = [prepared for call in calls if (prepared := self._prepare(call, now, new, verdicts))]
        try:
            decided = self._decide(list(new.values()), now)
        except Exception as error:
            for prepared in answers:
                if len(answers) == 1:
                    prepared.call.future.set_exception(error)
                else:
                    self.serve([prepared.call])
            return
        verdicts |= {transaction_id: self._cache.add(cached) for transaction_id, cached in decided.items()}
        for prepared in answers:
            prepared.verdicts = [verdicts[transaction_id] for transaction_id in prepared.ids]
            self._delivery.send(prepared)

    def _prepare(
        self,
        call: PredictCall,
        now: datetime,
        new: dict[str, tuple[TransactionReceived, PredictCall]],
        verdicts: dict[str, CachedVerdict],
    ) -> PreparedAnswer | None:
        """The answer to *call*, still without verdicts; None where *call* is refused.

        Adds cached verdicts to *verdicts*, and transactions without one to *new* (only if none conflicts).
        """
        own: dict[str, tuple[TransactionReceived, PredictCall]] = {}
        prepared = PreparedAnswer(call)
        try:
            for request in call.requests:
                transaction_id = request.transaction_id or uuid.uuid4().hex
                cached = self._cache.get(transaction_id)
                earlier = own.get(transaction_id) or new.get(transaction_id)
                if cached:
                    require_same(cached.verdict, request, self._features.layout)
                    verdicts[transaction_id] = cached
                elif earlier:
                    require_same(earlier[0], request, self._features.layout)
                else:
                    own[transaction_id] = (_transaction(request, transaction_id, now), call)
                prepared.ids.append(transaction_id)
                prepared.repeated.append(bool(cached or earlier))
            if own:
                self._require_able(len(own))
                self._require_new([transaction for transaction, _ in own.values()])
        except (RequestRefused, DependencyUnavailable) as refused:
            call.future.set_exception(refused)
            return None
        new |= own
        return prepared

    def _require_able(self, count: int) -> None:
        if missing := self._missing():
            raise NotReady("; ".join(f"{name}: {detail}" for name, detail in missing.items()))
        if not self._delivery.has_room(count):
            raise OutboxFull("Kafka is unavailable, and the outbox is full", dependency="kafka")

    def _require_new(self, transactions: list[TransactionReceived]) -> None:
        """Refuse what is in the log without a verdict known here: the stream's verdict is valid, and no other must be
        given."""
        for transaction, seen in zip(transactions, self._features.seen(transactions), strict=True):
            if seen:
                detail = (
                    f"transaction {transaction.transaction_id} is in the log; its verdict is, or will be, in topic"
                    " predictions"
                )
                raise RequestRefused(409, "already_in_log", detail, field="transaction_id")

    def _decide(self, new: list[tuple[TransactionReceived, PredictCall]], now: datetime) -> dict[str, CachedVerdict]:
        if not new:
            return {}
        transactions = [transaction for transaction, _ in new]
        layout = self._features.layout
        matrix = self._features.features(transactions)
        scored = iter(self._score(transactions, matrix, now))
        decided: dict[str, CachedVerdict] = {}
        for (transaction, call), vector in zip(new, pack_rows(matrix), strict=True):
            verdict = (
                next(scored)
                if transaction.kind == PURCHASE
                else not_scored(AttachedVerdict, "gateway", transaction.kind, vector, layout, now)
            )
            if transaction.currency != self._features.currency:
                verdict = msgspec.structs.replace(verdict, feature_currency=self._features.currency)
            with_verdict = msgspec.structs.replace(transaction, verdict=verdict)
            record = _record(with_verdict, call, now)
            decided[transaction.transaction_id] = CachedVerdict(GivenVerdict.of(transaction, verdict), record)
        return decided

    def _score(
        self, transactions: list[TransactionReceived], matrix: NDArray[np.float64], now: datetime
    ) -> list[AttachedVerdict]:
        """The verdicts on the purchases among *transactions*, whose features are *matrix*."""
        rows = [row for row, transaction in enumerate(transactions) if transaction.kind == PURCHASE]
        if not rows:
            return []
        keys = [transactions[row].user_id or transactions[row].transaction_id for row in rows]
        with metrics.SCORING_DURATION.time():
            batch = self._core.score(
                matrix if len(rows) == len(transactions) else matrix[rows], self._features.layout, keys
            )
        metrics.count_decisions(batch)
        return batch.verdicts(AttachedVerdict, "gateway", now)


def _transaction(request: PredictRequest, transaction_id: str, now: datetime) -> TransactionReceived:
    return TransactionReceived(
        transaction_id=transaction_id,
        occurred_at=request.occurred_at or now,
        amount=request.amount,
        user_id=request.user_id,
        terminal_id=request.terminal_id,
        currency=request.currency,
        attributes=request.attributes,
        kind=request.kind,
    )


def _record(transaction: TransactionReceived, call: PredictCall, now: datetime) -> Outgoing:
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
