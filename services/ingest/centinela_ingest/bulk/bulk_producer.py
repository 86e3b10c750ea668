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
from centinela.events import DEFAULT_CURRENCY
from centinela.kafka.port import Outgoing, Producer
from centinela.times import from_ms, to_ms
from centinela_ingest.bulk.delivery_window import DeliveryWindow
from centinela_ingest.bulk.label_schedule import LabelSchedule
from centinela_ingest.bulk.pacing import Pacer
from centinela_ingest.encoding import HISTORY, label_records, transaction_records


@dataclass
class Counters:
    """What was sent so far. ``event_time`` is the latest transaction's."""

    transactions: int = 0
    frauds: int = 0
    labels: int = 0
    rejected: int = 0
    event_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class BulkOptions:
    """What is sent, and how fast.

    Args:
        source: CloudEvents source, also the origin of rejected rows (``centinela/ingest/replay/creditcard.csv``).
        history: Mark transactions as loaded history: they need no model and get no score.
        labels: Whether to send labels.
        rate: Most transactions a second.
        speedup: Seconds of event time in a second.
        patience_s: How long Kafka may accept nothing before the run is abandoned.
        currency: Of the simulator's amounts; those of a file have their own.
    """

    source: str
    history: bool = False
    labels: bool = True
    rate: float | None = None
    speedup: float | None = None
    patience_s: float = 60.0
    currency: str = DEFAULT_CURRENCY
    transactions_topic: str = topics.TRANSACTIONS.name
    labels_topic: str = topics.LABELS.name


class BulkProducer:
    """Sends transactions in order, and each label once event time has reached its report.

    ``history`` may be changed between days.

    Args:
        producer: Where records go; the caller closes it.
        stop: Once set, ``send`` returns after the current slice.
        on_progress: Called after each slice.
        wait: How to wait: ``stop.wait`` by default.
    """

    def __init__(
        self,
        producer: Producer,
        options: BulkOptions,
        *,
        stop: threading.Event | None = None,
        clock: Clock | None = None,
        on_progress: Callable[[Counters], None] | None = None,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self.stop = stop or threading.Event()
        self.counters = Counters()
        self.history = options.history
        self._options = options
        self._clock = clock or SystemClock()
        wait = wait or self.stop.wait
        self._window = DeliveryWindow(producer, self._clock, wait, patience_s=options.patience_s)
        self._pacer = Pacer(self._clock, wait, rate=options.rate, speedup=options.speedup)
        self._schedule = LabelSchedule() if options.labels else None
        self._on_progress = on_progress
        self._event_ms = 0

    def send_day(self, frame: pd.DataFrame) -> bool:
        """Send a day of the simulator. False where the run was stopped before its end."""
        return self.send(Transactions.from_frame(frame, self._options.currency))

    def send(self, transactions: Transactions) -> bool:
        """Send *transactions*, and the labels that become due. False where the run was stopped before the end.

        Raises:
            DeliveryIncomplete: Kafka accepted nothing for longer than the patience.
        """
        at = 0
        while at < len(transactions):
            end = self._pacer.slice_end(transactions.occurred_ms, at)
            if self._pacer.wait_until_due(int(transactions.occurred_ms[at]), end - at):
                return False
            self._send_slice(transactions, at, end)
            at = end
            if self._on_progress:
                self._on_progress(self.counters)
        return not self.stop.is_set()

    def reject(self, rejects: Sequence[Reject], *, file: str | None = None) -> None:
        """Send rows that are not transactions to the dead letters, with file, row and reason in the headers.

        Args:
            file: Where the source is a folder: the name of the rows' file.
        """
        source = self._options.source if file is None else f"{self._options.source}/{file}"
        at = self._clock.now().isoformat().encode()
        for reject in rejects:
            value = msgspec.json.encode(reject.values, enc_hook=str)
            headers = (
                ("dlq.reason", reject.reason.encode()),
                ("dlq.detail", cut_text(reject.detail)),
                ("dlq.source", source.encode()),
                ("dlq.row", b"%d" % reject.row),
                ("dlq.size", b"%d" % len(value)),
                ("dlq.at", at),
            )
            self._window.send(
                Outgoing(self._options.transactions_topic + topics.DLQ_SUFFIX, value[:MAX_RECORD_BYTES], None, headers)
            )
            self.counters.rejected += 1

    def finish(self, *, remaining_labels: bool = True) -> None:
        """Send the remaining labels (if wanted, and not stopped), and wait until Kafka has everything.

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
        self._window.flush()

    @property
    def pending_labels(self) -> int:
        """Labels that are not due yet."""
        return len(self._schedule) if self._schedule is not None else 0

    @property
    def undelivered(self) -> int:
        """Records that Kafka did not acknowledge."""
        return self._window.undelivered

    def _send_slice(self, transactions: Transactions, at: int, end: int) -> None:
        self._event_ms = max(self._event_ms, int(transactions.occurred_ms[at:end].max()))
        self._send_labels(self._event_ms)
        self._send_all(
            transaction_records(
                transactions,
                at,
                end,
                topic=self._options.transactions_topic,
                source=self._options.source,
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
        if until_ms is None:  # a report that is made now has no later time
            now_ms = to_ms(self._clock.now())
            due = [x._replace(reported_ms=max(x.occurred_ms, min(x.reported_ms, now_ms))) for x in due]
        self._send_all(label_records(due, topic=self._options.labels_topic, source=self._options.source))
        self.counters.labels += len(due)

    def _send_all(self, records: Iterable[Outgoing]) -> None:
        for record in records:
            self._window.send(record)
