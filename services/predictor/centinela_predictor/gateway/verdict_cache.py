"""The verdicts already given, so that a repeated transaction gets the first one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from datetime import datetime

import msgspec
import xxhash

from centinela.events import DEFAULT_CURRENCY, Kind, TransactionReceived, Verdict
from centinela.features.assemble import attribute_matrix
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.kafka.port import Delivery, Outgoing
from centinela.web.refusals import RequestRefused
from centinela_predictor.gateway.requests import PredictRequest

_NO_VECTOR: dict[str, None] = {"feature_set": None, "features": None}


class GivenVerdict(Verdict, frozen=True, gc=False):
    """What was answered for a transaction, and enough of the transaction to recognize it.

    A record of ``predictions`` decodes to it. ``attributes`` is None where only ``predictions`` is known; ``raw`` then
    is a digest of those that the layout names (``raw_digest``). The vector is not kept.
    """

    scored_at: datetime
    transaction_id: str
    occurred_at: datetime
    amount: float
    user_id: str | None = None
    terminal_id: str | None = None
    currency: str = DEFAULT_CURRENCY
    attributes: dict[str, float | None] | None = None
    raw: int | None = None
    kind: Kind = "purchase"

    @classmethod
    def of(cls, transaction: TransactionReceived, verdict: Verdict) -> GivenVerdict:
        """What to remember of *verdict* on *transaction*."""
        fields = {name: getattr(verdict, name) for name in Verdict.__struct_fields__}
        return cls(
            **fields | _NO_VECTOR,
            transaction_id=transaction.transaction_id,
            occurred_at=transaction.occurred_at,
            amount=transaction.amount,
            user_id=transaction.user_id,
            terminal_id=transaction.terminal_id,
            currency=transaction.currency,
            attributes=transaction.attributes,
            kind=transaction.kind,
        )

    def without_vector(self, layout: FeatureLayout) -> GivenVerdict:
        """What to remember of a record of ``predictions``, where *layout* is the gateway's own."""
        raw = None
        width = 8 * len(layout.attributes)
        if self.features and self.feature_set == layout.id and len(self.features) == 8 * len(layout.names) and width:
            raw = xxhash.xxh3_64_intdigest(self.features[-width:])
        return msgspec.structs.replace(self, **_NO_VECTOR, raw=raw)


def raw_digest(transaction: TransactionReceived, layout: FeatureLayout) -> int:
    """Digest of the attributes of *transaction* that *layout* names, as served: the last columns of the vector."""
    return xxhash.xxh3_64_intdigest(pack_rows(attribute_matrix([transaction], layout))[0])


def require_same(first: GivenVerdict | TransactionReceived, request: PredictRequest, layout: FeatureLayout) -> None:
    """Check that *request*, of the same id, is the transaction of *first*. A time that *request* omits does not differ.

    Raises:
        RequestRefused: 409, naming the first field that differs.
    """
    if (field := _differing_field(first, request, layout)) is not None:
        raise RequestRefused(
            409,
            "conflict",
            f"transaction {first.transaction_id} was sent before with another {field}",
            field=field,
        )


def _differing_field(
    first: GivenVerdict | TransactionReceived, request: PredictRequest, layout: FeatureLayout
) -> str | None:
    for name in ("amount", "user_id", "terminal_id", "currency", "kind"):
        if getattr(first, name) != getattr(request, name):
            return name
    if request.occurred_at is not None and request.occurred_at != first.occurred_at:
        return "occurred_at"
    if first.attributes is not None:
        return "attributes" if request.attributes != first.attributes else None
    if not isinstance(first, GivenVerdict) or first.raw is None:
        return None
    repeated = TransactionReceived(
        transaction_id=first.transaction_id,
        occurred_at=first.occurred_at,
        amount=request.amount,
        attributes=request.attributes,
    )
    return "attributes" if raw_digest(repeated, layout) != first.raw else None


def gateway_verdict(transaction: TransactionReceived) -> GivenVerdict | None:
    """The verdict that a gateway attached to *transaction*, or None."""
    verdict = transaction.verdict
    if verdict is None or verdict.origin != "gateway" or verdict.scored_at is None:
        return None
    return GivenVerdict.of(transaction, verdict)


class CachedVerdict:
    """A verdict and whether it can be lost.

    ``outgoing`` is the record that neither log nor outbox has, ``delivery`` its delivery to Kafka, where one is under
    way. Until the log has it, a retry gets this very record: the first verdict remains the verdict.
    """

    __slots__ = ("delivery", "outgoing", "stored", "verdict")

    def __init__(self, verdict: GivenVerdict, outgoing: Outgoing | None = None) -> None:
        self.verdict = verdict
        self.outgoing = outgoing
        self.stored = False
        self.delivery: Delivery | None = None

    @property
    def pending(self) -> bool:
        """Whether the log may not have it."""
        return self.outgoing is not None or self.stored


class VerdictCache:
    """The latest verdicts by transaction id. The oldest are evicted first, but none that the log may not have.
    Thread-safe.

    Args:
        capacity: Verdicts kept, in addition to the pending ones.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._confirmed: OrderedDict[str, CachedVerdict] = OrderedDict()
        self._pending: dict[str, CachedVerdict] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._confirmed) + len(self._pending)

    def get(self, transaction_id: str) -> CachedVerdict | None:
        """The verdict on *transaction_id*, where it is still kept."""
        with self._lock:
            return self._pending.get(transaction_id) or self._confirmed.get(transaction_id)

    def add(self, cached: CachedVerdict) -> CachedVerdict:
        """Keep *cached* unless there is one of its id; the one kept."""
        with self._lock:
            transaction_id = cached.verdict.transaction_id
            kept = self._pending.get(transaction_id) or self._confirmed.get(transaction_id)
            if kept is None:
                kept = cached
                (self._pending if cached.pending else self._confirmed)[transaction_id] = cached
                self._evict_oldest()
        return kept

    def add_from_log(self, verdict: GivenVerdict, final: bool) -> None:
        """Add a verdict read from the log. A *final* one, of ``predictions``, replaces any other."""
        cached = self.add(CachedVerdict(verdict))
        if final:
            cached.verdict = (
                verdict
                if verdict.attributes is not None
                else msgspec.structs.replace(verdict, attributes=cached.verdict.attributes)
            )
        self.confirm(cached)

    def mark_stored(self, cached: CachedVerdict) -> None:
        """The outbox has *cached*: it cannot be lost, and may be answered."""
        with self._lock:
            if cached.outgoing is not None:
                cached.outgoing = None
                cached.stored = True

    def confirm(self, cached: CachedVerdict) -> None:
        """The log has *cached*."""
        with self._lock:
            cached.outgoing = None
            cached.stored = False
            cached.delivery = None
            transaction_id = cached.verdict.transaction_id
            if self._pending.get(transaction_id) is cached:
                self._confirmed[transaction_id] = self._pending.pop(transaction_id)
                self._evict_oldest()

    def evict(self, cached: CachedVerdict) -> None:
        """Drop a verdict that never reached the log and never will."""
        with self._lock:
            if self._pending.get(cached.verdict.transaction_id) is cached:
                del self._pending[cached.verdict.transaction_id]

    def _evict_oldest(self) -> None:
        while len(self._confirmed) > self._capacity:
            self._confirmed.popitem(last=False)
