"""The one path by which files and the simulator reach Kafka: paced, with labels in event time, counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import numpy as np
import pandas as pd

from centinela import topics
from centinela.clock import Clock, SystemClock
from centinela.codec import MAX_RECORD_BYTES
from centinela.datasets.columns import Transactions
from centinela.datasets.rows import Reject
from centinela.deadletters.record import cut_text
from centinela.kafka.port import Outgoing, Producer
from centinela.times import from_ms
from centinela_ingest.bulk.delivery_window import DeliveryIncomplete, Outbox
from centinela_ingest.bulk.label_schedule import LabelSchedule
from centinela_ingest.bulk.pacing import Pacer
from centinela_ingest.encoding import HISTORY, label_records, transaction_records


@dataclass
class Counters:
    """What a feed has sent so far. ``event_time`` is the latest transaction's."""

    transactions: int = 0
    frauds: int = 0
    labels: int = 0
    rejected: int = 0
    event_time: datetime | None = None


class Feed:
    """Sends transactions in order, and each label once event time has reached its report.

    Args:
        producer: Where records go; the caller closes it.
        source: CloudEvents source, also the origin of rejected rows (``centinela/ingest/replay/creditcard.csv``).
        stop: Once set, ``send`` returns after the slice in hand.
        history: Mark transactions as loaded history: they need no model and get no score. May be changed between days.
        labels: Send labels at all.
        rate: Transactions a second at most.
        speedup: Seconds of event time in a second.
        on_progress: Called after each slice.
        wait: How to wait; ``stop.wait`` unless a test says otherwise.
    """

    def __init__(
        self,
        producer: Producer,
        *,
        source: str,
        stop: threading.Event | None = None,
        clock: Clock | None = None,
        history: bool = False,
        labels: bool = True,
        rate: float | None = None,
        speedup: float | None = None,
        on_progress: Callable[[Counters], None] | None = None,
        patience_s: float = 60.0,
        wait: Callable[[float], bool] | None = None,
        transactions_topic: str = topics.TRANSACTIONS.name,
        labels_topic: str = topics.LABELS.name,
    ) -> None:
        self.stop = stop or threading.Event()
        self.counters = Counters()
        self._clock = clock or SystemClock()
        wait = wait or self.stop.wait
        self._outbox = Outbox(producer, self._clock, wait, patience_s=patience_s)
        self._pacer = Pacer(self._clock, wait, rate=rate, speedup=speedup)
        self._schedule = LabelSchedule() if labels else None
        self.history = history
        self._source = source
        self._on_progress = on_progress
        self._transactions_topic, self._labels_topic = transactions_topic, labels_topic
        self._event_ms = 0

    def send_day(self, frame: pd.DataFrame) -> bool:
        """Send a day of the simulator. False where the run was stopped before its end."""
        return self.send(Transactions.from_frame(frame))

    def send(self, transactions: Transactions) -> bool:
        """Send *transactions*, and the labels that fall due meanwhile. False where the run was stopped before the end.

        Raises:
            DeliveryIncomplete: Kafka took nothing for longer than the patience.
        """
        at = 0
        while at < len(transactions):
            end = self._pacer.slice_end(transactions.occurred_ms, at)
            if self._pacer.hold(int(transactions.occurred_ms[at]), end - at):
                return False
            self._send_slice(transactions, at, end)
            at = end
            if self._on_progress:
                self._on_progress(self.counters)
        return not self.stop.is_set()

    def reject(self, rejects: Sequence[Reject]) -> None:
        """Send rows that are no transactions to the dead letters, with file, row and reason in the headers."""
        at = self._clock.now().isoformat().encode()
        for reject in rejects:
            value = msgspec.json.encode(reject.values, enc_hook=str)
            headers = (
                ("dlq.reason", reject.reason.encode()),
                ("dlq.detail", cut_text(reject.detail)),
                ("dlq.source", self._source.encode()),
                ("dlq.row", b"%d" % reject.row),
                ("dlq.size", b"%d" % len(value)),
                ("dlq.at", at),
            )
            self._outbox.send(
                Outgoing(self._transactions_topic + topics.DLQ_SUFFIX, value[:MAX_RECORD_BYTES], None, headers)
            )
            self.counters.rejected += 1

    def finish(self, *, remaining_labels: bool = True) -> None:
        """Send the labels that are left (unless told otherwise or stopped), and wait until Kafka has everything.

        Raises:
            DeliveryIncomplete: It does not have everything; says how many records are missing.
        """
        if remaining_labels and not self.stop.is_set():
            self._send_labels(None)
        self.flush()
        if self._on_progress:
            self._on_progress(self.counters)

    def flush(self) -> None:
        """Wait until Kafka has everything sent so far.

        Raises:
            DeliveryIncomplete: It does not have everything; says how many records are missing.
        """
        self._outbox.flush()

    @property
    def pending_labels(self) -> int:
        """Labels whose time has not come."""
        return len(self._schedule) if self._schedule is not None else 0

    @property
    def undelivered(self) -> int:
        """Records that Kafka did not acknowledge."""
        return self._outbox.undelivered

    def _send_slice(self, transactions: Transactions, at: int, end: int) -> None:
        self._event_ms = max(self._event_ms, int(transactions.occurred_ms[at:end].max()))
        self._send_labels(self._event_ms)
        self._send_all(
            transaction_records(
                transactions,
                at,
                end,
                topic=self._transactions_topic,
                source=self._source,
                verdict=HISTORY if self.history else None,
            )
        )
        if self._schedule is not None:
            self._schedule.add(transactions, at, end)
        self.counters.transactions += end - at
        self.counters.frauds += int(np.count_nonzero(transactions.is_fraud[at:end]))
        self.counters.event_time = from_ms(self._event_ms)

    def _send_labels(self, until_ms: int | None) -> None:
        if self._schedule is None:
            return
        due = self._schedule.due(until_ms)
        self._send_all(label_records(due, topic=self._labels_topic, source=self._source))
        self.counters.labels += len(due)

    def _send_all(self, records: Iterable[Outgoing]) -> None:
        for record in records:
            self._outbox.send(record)


__all__ = ["Counters", "DeliveryIncomplete", "Feed"]
