"""Transactions and labels as Kafka records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from centinela.datasets.columns import Transactions
from centinela.events import AttachedVerdict, LabelReported, TransactionReceived, encode
from centinela.kafka.headers import event_headers
from centinela.kafka.port import Outgoing
from centinela.times import from_ms

HISTORY = AttachedVerdict(origin="history", decision="approve", variant="none")


def record_key(user_id: str | None, transaction_id: str) -> bytes:
    """The key of a transaction and of its label: the user where known, so that one partition holds a user's stream."""
    return (user_id if user_id is not None else transaction_id).encode()


def transaction_record(
    event: TransactionReceived, *, topic: str, source: str, traceparent: str | None = None
) -> Outgoing:
    """The record of one transaction."""
    headers = event_headers(
        event_type="TransactionReceived",
        event_id=event.transaction_id,
        source=source,
        time=event.occurred_at,
        traceparent=traceparent,
    )
    return Outgoing(topic, encode(event), record_key(event.user_id, event.transaction_id), headers)


def label_record(event: LabelReported, *, topic: str, source: str, traceparent: str | None = None) -> Outgoing:
    """The record of one label."""
    headers = event_headers(
        event_type="LabelReported",
        event_id=event.transaction_id,
        source=source,
        time=event.reported_at,
        traceparent=traceparent,
    )
    return Outgoing(topic, encode(event), record_key(event.user_id, event.transaction_id), headers)


def transaction_records(
    transactions: Transactions,
    start: int,
    end: int,
    *,
    topic: str,
    source: str,
    verdict: AttachedVerdict | None,
) -> Iterator[Outgoing]:
    """The records of rows ``start .. end - 1``, in order. NaN attributes are written as null."""
    names, matrix = transactions.attribute_names, transactions.attributes[start:end].astype(object)
    matrix[np.isnan(transactions.attributes[start:end])] = None
    columns = zip(
        transactions.transaction_id[start:end],
        transactions.occurred_ms[start:end].tolist(),
        transactions.user_id[start:end],
        transactions.terminal_id[start:end],
        transactions.amount[start:end].tolist(),
        transactions.currency[start:end],
        transactions.kind[start:end],
        matrix,
        strict=True,
    )
    for transaction_id, occurred_ms, user_id, terminal_id, amount, currency, kind, row in columns:
        event = TransactionReceived(
            transaction_id=transaction_id,
            occurred_at=from_ms(occurred_ms),
            amount=amount,
            currency=currency,
            kind=kind,
            user_id=user_id,
            terminal_id=terminal_id,
            attributes=dict(zip(names, row, strict=True)),
            verdict=verdict,
        )
        yield transaction_record(event, topic=topic, source=source)


def label_records(labels: Sequence[DueLabel], *, topic: str, source: str) -> Iterator[Outgoing]:
    """The records of *labels*, in order."""
    for label in labels:
        event = LabelReported(
            transaction_id=label.transaction_id,
            is_fraud=label.is_fraud,
            occurred_at=from_ms(label.occurred_ms),
            reported_at=from_ms(label.reported_ms),
            user_id=label.user_id,
            source="chargeback" if label.is_fraud else "review",
        )
        yield label_record(event, topic=topic, source=source)


class DueLabel(NamedTuple):
    """A label in the order in which it becomes known; times in milliseconds since the epoch."""

    reported_ms: int
    transaction_id: str
    user_id: str | None
    is_fraud: bool
    occurred_ms: int
