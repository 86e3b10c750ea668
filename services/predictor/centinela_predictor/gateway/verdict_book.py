"""The verdicts already given, so that a repeated transaction gets the first one [P]."""

from __future__ import annotations

import threading
from datetime import datetime

import msgspec
import xxhash

from centinela.events import AnyVerdict, TransactionReceived
from centinela.features.assemble import attribute_matrix
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.kafka.port import Delivery, Outgoing
from centinela.web.refusals import RequestRefused
from centinela_predictor.gateway.requests import PredictRequest

_NO_VECTOR: dict[str, None] = {"feature_set": None, "features": None}


class GivenVerdict(AnyVerdict, frozen=True, gc=False):
    """What was answered for a transaction, and enough of the transaction to recognize it.

    A record of ``predictions`` decodes to it. ``attributes`` is None where only ``predictions`` is known; ``raw`` then
    represents those that the layout names (``raw_digest``). The vector is not kept.
    """

    scored_at: datetime
    transaction_id: str
    occurred_at: datetime
    amount: float
    user_id: str | None = None
    terminal_id: str | None = None
    currency: str = "EUR"
    attributes: dict[str, float | None] | None = None
    raw: int | None = None

    @classmethod
    def of(cls, transaction: TransactionReceived, verdict: AnyVerdict) -> GivenVerdict:
        """What to remember of *verdict* on *transaction*."""
        fields = {name: getattr(verdict, name) for name in AnyVerdict.__struct_fields__}
        return cls(
            **fields | _NO_VECTOR,
            transaction_id=transaction.transaction_id,
            occurred_at=transaction.occurred_at,
            amount=transaction.amount,
            user_id=transaction.user_id,
            terminal_id=transaction.terminal_id,
            currency=transaction.currency,
            attributes=transaction.attributes,
        )

    def without_vector(self, layout: FeatureLayout) -> GivenVerdict:
        """What to remember of a record of ``predictions``, where *layout* is the gateway's own."""
        raw = None
        width = 8 * len(layout.attributes)
        if self.features and self.feature_set == layout.id and len(self.features) == 8 * len(layout.names) and width:
            raw = xxhash.xxh3_64_intdigest(self.features[-width:])
        return msgspec.structs.replace(self, **_NO_VECTOR, raw=raw)


def raw_digest(transaction: TransactionReceived, layout: FeatureLayout) -> int:
    """Stands for the attributes of *transaction* that *layout* names, as served: the last columns of the vector."""
    return xxhash.xxh3_64_intdigest(pack_rows(attribute_matrix([transaction], layout))[0])


def check_same(known: GivenVerdict | TransactionReceived, request: PredictRequest, layout: FeatureLayout) -> None:
    """See that *request*, of the same id, is the transaction that is *known*. A time that *request* leaves out is no
    difference.

    Raises:
        RequestRefused: 409, naming the first field that differs.
    """
    differs = next(
        (
            name
            for name in ("amount", "user_id", "terminal_id", "currency")
            if getattr(known, name) != getattr(request, name)
        ),
        None,
    )
    if differs is None and request.occurred_at is not None and request.occurred_at != known.occurred_at:
        differs = "occurred_at"
    if differs is None and known.attributes is not None and request.attributes != known.attributes:
        differs = "attributes"
    if differs is None and isinstance(known, GivenVerdict) and known.attributes is None and known.raw is not None:
        again = TransactionReceived(
            transaction_id=known.transaction_id,
            occurred_at=known.occurred_at,
            amount=request.amount,
            attributes=request.attributes,
        )
        differs = "attributes" if raw_digest(again, layout) != known.raw else None
    if differs:
        raise RequestRefused(
            409,
            "conflict",
            f"transaction {known.transaction_id} was given before with another {differs}",
            field=differs,
        )


def adopted(transaction: TransactionReceived) -> GivenVerdict | None:
    """The verdict that *transaction* brings with it from a gateway, or None."""
    verdict = transaction.verdict
    if verdict is None or verdict.origin != "gateway" or verdict.scored_at is None:
        return None
    return GivenVerdict.of(transaction, verdict)


class Entry:
    """A verdict and whether it can be lost. ``outgoing`` is the record that neither log nor outbox has, ``delivery``
    its way to Kafka, where it is on one.

    Until the log has it, a retry stands for the very same record: the first verdict stays the verdict.
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


class VerdictBook:
    """The latest verdicts by transaction id, thread-safe, the oldest forgotten first, but none that the log may not
    have.

    Args:
        capacity: Verdicts kept, beside those that are pending.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: dict[str, Entry] = {}
        self._pending: dict[str, Entry] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries) + len(self._pending)

    def get(self, transaction_id: str) -> Entry | None:
        """The entry of *transaction_id*, where it is still kept."""
        with self._lock:
            return self._pending.get(transaction_id) or self._entries.get(transaction_id)

    def add(self, entry: Entry) -> Entry:
        """Keep *entry* unless there is one of its id; the one kept."""
        with self._lock:
            transaction_id = entry.verdict.transaction_id
            kept = self._pending.get(transaction_id) or self._entries.get(transaction_id)
            if kept is None:
                (self._pending if entry.pending else self._entries)[transaction_id] = kept = entry
                self._forget_oldest()
        return kept

    def stored(self, entry: Entry) -> None:
        """The outbox has *entry*: it cannot be lost, and may be answered."""
        with self._lock:
            if entry.outgoing is not None:
                entry.outgoing, entry.stored = None, True

    def settle(self, entry: Entry) -> None:
        """The log has *entry*."""
        with self._lock:
            entry.outgoing, entry.stored, entry.delivery = None, False, None
            transaction_id = entry.verdict.transaction_id
            if self._pending.get(transaction_id) is entry:
                self._entries[transaction_id] = self._pending.pop(transaction_id)
                self._forget_oldest()

    def learn(self, verdict: GivenVerdict, final: bool) -> None:
        """Take in a verdict read from the log. A *final* one, of ``predictions``, stands over any other."""
        entry = self.add(Entry(verdict))
        if final:
            entry.verdict = (
                verdict
                if verdict.attributes is not None
                else msgspec.structs.replace(verdict, attributes=entry.verdict.attributes)
            )
        self.settle(entry)

    def forget(self, entry: Entry) -> None:
        """Drop an entry that never reached the log and never will."""
        with self._lock:
            if self._pending.get(entry.verdict.transaction_id) is entry:
                del self._pending[entry.verdict.transaction_id]

    def _forget_oldest(self) -> None:
        while len(self._entries) > self._capacity:
            del self._entries[next(iter(self._entries))]
