"""A request in, records out: what is accepted, and what is written for it."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from centinela import topics
from centinela.codec import MAX_RECORD_BYTES
from centinela.events import LabelReported, TransactionReceived
from centinela.features.currency import Rates
from centinela.features.known_fields import KnownFields
from centinela.kafka.headers import event_source
from centinela.kafka.port import Outgoing
from centinela.web.refusals import RequestRefused
from centinela_ingest.api.requests import LabelIn, Parser, TransactionIn, ids
from centinela_ingest.encoding import label_record, transaction_record

SOURCE = event_source("ingest", "http")


class Accepted(NamedTuple):
    """The ids in the order of the request, a record for each, and the fields that mean nothing here."""

    transaction_ids: list[str]
    records: list[Outgoing]
    user_id: str | None
    unknown_fields: tuple[str, ...]


class IngestHandler:
    """Turns bodies into records, all or none.

    Args:
        max_batch: Most transactions or labels in one request.
        known: The attributes that a transaction may have.
        rates: The base currency, and the rates of others.
    """

    def __init__(
        self,
        max_batch: int,
        known: KnownFields,
        rates: Rates,
        *,
        transactions_topic: str = topics.TRANSACTIONS.name,
        labels_topic: str = topics.LABELS.name,
    ) -> None:
        self._transactions = Parser(TransactionIn, TransactionReceived, max_batch, known, rates)
        self._labels = Parser(LabelIn, LabelReported, max_batch, known)
        self._transactions_topic = transactions_topic
        self._labels_topic = labels_topic

    def transactions(self, body: bytes, now: datetime, traceparent: str) -> Accepted:
        """The records of ``POST /transactions``.

        Raises:
            RequestRefused: Nothing of the request is accepted.
        """
        events, unknown = self._transactions.parse(body, now)
        records = [
            transaction_record(e, topic=self._transactions_topic, source=SOURCE, traceparent=traceparent)
            for e in events
        ]
        return _accepted(ids(events), records, events[0].user_id, unknown)

    def labels(self, body: bytes, now: datetime, traceparent: str) -> Accepted:
        """The records of ``POST /labels``.

        Raises:
            RequestRefused: Nothing of the request is accepted.
        """
        events, unknown = self._labels.parse(body, now)
        records = [label_record(e, topic=self._labels_topic, source=SOURCE, traceparent=traceparent) for e in events]
        return _accepted(ids(events), records, events[0].user_id, unknown)


def _accepted(
    transaction_ids: list[str], records: list[Outgoing], user_id: str | None, unknown: tuple[str, ...]
) -> Accepted:
    for index, record in enumerate(records):
        if len(record.value or b"") > MAX_RECORD_BYTES:
            raise RequestRefused(413, "too_large", f"one record takes at most {MAX_RECORD_BYTES} bytes", index=index)
    return Accepted(transaction_ids, records, user_id if len(records) == 1 else None, unknown)
