"""The bulk producer: order, pace, labels in event time, and nothing lost silently."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from centinela.codec import Decoder
from centinela.datasets.columns import NEVER, Transactions
from centinela.datasets.rows import Reject
from centinela.datasets.simulator import Profile, Simulation
from centinela.errors import DependencyUnavailable
from centinela.events import LabelReported, TransactionReceived
from centinela.kafka.port import Delivery, Outgoing
from centinela.testing.kafka import FakeBroker, FakeProducer
from centinela_ingest.bulk.bulk_producer import BulkOptions, BulkProducer, Counters
from centinela_ingest.bulk.delivery_window import DeliveryIncomplete
from centinela_ingest.bulk.pacing import Pacer

HOUR_MS = 3_600_000
START_MS = 1_767_225_600_000


class FakeTime:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.waits: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> bool:
        self.seconds += seconds
        self.waits.append(seconds)
        return False


class Recorder:
    """Between bulk producer and broker: records the order, and can refuse or not acknowledge."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.unavailable = False
        self.lost: set[int] = set()
        self.at: list[float] = []
        self.time: FakeTime | None = None

    def send(self, record: Outgoing) -> Delivery:
        if self.unavailable:
            raise DependencyUnavailable("unavailable", dependency="kafka")
        self.sent.append(record)
        if self.time is not None:
            self.at.append(self.time.seconds)
        return _Delivery(len(self.sent) - 1 not in self.lost)

    def flush(self, timeout_s: float) -> None:
        """Not used by the bulk producer."""

    def close(self) -> None:
        """Nothing to release."""


class _Delivery:
    def __init__(self, acknowledged: bool) -> None:
        self._acknowledged = acknowledged

    def wait(self, timeout_s: float) -> None:
        if not self._acknowledged:
            raise DependencyUnavailable("not acknowledged", dependency="kafka")


def test_labels_that_are_left_at_the_end_are_reported_now_at_the_latest() -> None:
    """A label that is sent is known: consumers refuse a report ahead of their clock."""
    producer, clock = Recorder(), FakeTime()
    bulk = BulkProducer(producer, BulkOptions(source="test"), clock=clock, wait=clock.wait)
    now_ms = int(clock.now().timestamp() * 1_000)
    hours = [0.0, (now_ms - START_MS) / HOUR_MS - 1]
    bulk.send(columns(hours, frauds={0: 1.0, 1: 168.0}))
    bulk.finish()
    labels = [Decoder(LabelReported).decode(r.value) for r in producer.sent if r.topic == "labels"]
    assert [label.reported_at for label in labels][-1] == clock.now()
    assert len(labels) == 2


def columns(hours: list[float], frauds: dict[int, float] | None = None) -> Transactions:
    """Transactions at *hours*; *frauds*: row to hours until its report."""
    count, frauds = len(hours), frauds or {}
    occurred = np.array([START_MS + int(h * HOUR_MS) for h in hours])
    reported = np.full(count, NEVER)
    for row, lag in frauds.items():
        reported[row] = occurred[row] + int(lag * HOUR_MS)
    return Transactions(
        transaction_id=np.array([f"t{n}" for n in range(count)], dtype=object),
        occurred_ms=occurred,
        user_id=np.array([f"u{n % 3}" for n in range(count)], dtype=object),
        terminal_id=np.full(count, None, dtype=object),
        amount=np.arange(count, dtype=float),
        currency=np.full(count, "EUR", dtype=object),
        kind=np.full(count, "purchase", dtype=object),
        attribute_names=("v1",),
        attributes=np.where(np.arange(count) % 2, np.nan, 0.5)[:, None],
        is_fraud=np.isin(np.arange(count), list(frauds)),
        reported_ms=reported,
    )


def order(producer: Recorder) -> list[str]:
    return [("L:" if r.topic == "labels" else "") + dict(r.headers)["ce_id"].decode() for r in producer.sent]


def make(producer: Recorder, time: FakeTime | None = None, **options: object) -> BulkProducer:
    time = time or FakeTime()
    return BulkProducer(producer, BulkOptions(source="test", **options), clock=time, wait=time.wait)  # type: ignore[arg-type]


def test_transactions_arrive_as_events_keyed_by_user_with_missing_values_as_null() -> None:
    broker = FakeBroker()
    bulk = BulkProducer(FakeProducer(broker), BulkOptions(source="test"))
    bulk.send(columns([0, 1]))
    bulk.finish()
    records = broker.records("transactions")
    events = [Decoder(TransactionReceived).decode(record.value) for record in records]
    assert [record.key for record in records] == [b"u0", b"u1"]
    assert [event.attributes for event in events] == [{"v1": 0.5}, {"v1": None}]
    assert events[1].occurred_at == datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert events[0].verdict is None


def test_history_carries_a_verdict_that_needs_no_model_and_may_end_between_days() -> None:
    producer = Recorder()
    bulk = make(producer, history=True)
    bulk.send(columns([0]))
    bulk.history = False
    bulk.send(columns([1]))
    first, second = [Decoder(TransactionReceived).decode(record.value).verdict for record in producer.sent]
    assert first is not None
    assert (first.origin, first.variant, first.score) == ("history", "none", None)
    assert second is None


def test_a_label_follows_once_event_time_has_reached_it_and_the_rest_come_last_in_order() -> None:
    producer = Recorder()
    bulk = make(producer, speedup=3_600)
    bulk.send(columns([0, 1, 2, 3], frauds={0: 1.5, 1: 90, 2: 60}))
    assert order(producer) == ["t0", "t1", "L:t0", "t2", "t3"]
    assert bulk.pending_labels == 2
    bulk.finish()
    assert order(producer)[-2:] == ["L:t2", "L:t1"]
    labels = [Decoder(LabelReported).decode(r.value) for r in producer.sent if r.topic == "labels"]
    assert [label.reported_at - label.occurred_at for label in labels] == [timedelta(hours=h) for h in (1.5, 60, 90)]
    assert all(label.is_fraud for label in labels)


def test_labels_of_one_day_go_out_while_later_days_are_sent() -> None:
    simulation = Simulation(Profile(seed=1, customers=200, terminals=400))
    producer = Recorder()
    bulk = make(producer)
    for frame in simulation.days(12):
        bulk.send_day(frame)
    decoder, decode_label = Decoder(TransactionReceived), Decoder(LabelReported)
    latest = datetime.min.replace(tzinfo=UTC)
    slack = timedelta(days=1)
    labels = 0
    for record in producer.sent:
        if record.topic == "transactions":
            latest = max(latest, decoder.decode(record.value).occurred_at)
        else:
            labels += 1
            assert decode_label.decode(record.value).reported_at <= latest + slack
    assert labels == bulk.counters.labels > 0


def test_no_labels_are_sent_where_none_are_wanted() -> None:
    producer = Recorder()
    bulk = make(producer, labels=False)
    bulk.send(columns([0, 300], frauds={0: 1}))
    bulk.finish()
    assert order(producer) == ["t0", "t1"]


def test_a_rate_is_kept_over_the_run() -> None:
    producer, time = Recorder(), FakeTime()
    producer.time = time
    make(producer, time, rate=100).send(columns([0.0] * 250))
    assert time.seconds == pytest.approx(2.45)
    assert max(np.bincount(np.floor(np.array(producer.at) + 1e-9).astype(int))) <= 100


def test_event_time_passes_at_the_speed_asked_for() -> None:
    producer, time = Recorder(), FakeTime()
    producer.time = time
    make(producer, time, speedup=3_600).send(columns([0, 1, 1.01, 5]))
    assert producer.at == pytest.approx([0, 1, 1, 5])


def test_rate_and_speed_both_limit() -> None:
    time = FakeTime()
    pacer = Pacer(time, time.wait, rate=1, speedup=3_600)
    times = np.array([START_MS, START_MS + 10, START_MS + 5 * HOUR_MS])
    assert pacer.slice_end(times, 0) == 1
    for row in range(3):
        pacer.wait_until_due(int(times[row]), 1)
    assert time.seconds == pytest.approx(5)


def test_a_stall_is_made_up_for() -> None:
    time = FakeTime()
    pacer = Pacer(time, time.wait, rate=10)
    pacer.wait_until_due(0, 10)
    time.seconds = 30
    pacer.wait_until_due(0, 10)
    pacer.wait_until_due(0, 10)
    assert time.seconds == 30


@pytest.mark.parametrize("options", [{"rate": 0}, {"speedup": -1}])
def test_a_pace_of_nothing_is_refused(options: dict[str, float]) -> None:
    time = FakeTime()
    with pytest.raises(ValueError, match="above 0"):
        Pacer(time, time.wait, **options)


def test_a_stop_ends_the_run_after_the_slice_in_hand() -> None:
    producer, stop = Recorder(), threading.Event()

    def stop_early(counters: Counters) -> None:
        if counters.transactions >= 3:
            stop.set()

    bulk = BulkProducer(
        producer,
        BulkOptions(source="test", rate=20),
        stop=stop,
        on_progress=stop_early,
        clock=FakeTime(),
        wait=lambda _s: stop.is_set(),
    )
    assert not bulk.send(columns([0, 1, 2, 3, 4], frauds={0: 1000}))
    bulk.finish()
    assert order(producer) == ["t0", "t1", "t2"], "labels that are left are not sent after a stop"


def test_counters_tell_what_went_out() -> None:
    bulk = make(Recorder())
    bulk.send(columns([0, 1, 2], frauds={1: 0.5}))
    bulk.finish()
    assert (bulk.counters.transactions, bulk.counters.frauds, bulk.counters.labels) == (3, 1, 1)
    assert bulk.counters.event_time == datetime(2026, 1, 1, 2, tzinfo=UTC)


def test_a_rejected_row_goes_to_the_dead_letters_with_its_origin() -> None:
    producer = Recorder()
    bulk = make(producer)
    bulk.reject(
        [Reject(17, "invalid_field", "amount: not a number", {"Amount": "ten", "at": datetime(2026, 1, 1, tzinfo=UTC)})]
    )
    [dead] = producer.sent
    headers = dict(dead.headers)
    assert dead.topic == "transactions-dlq"
    assert (headers["dlq.reason"], headers["dlq.detail"], headers["dlq.row"], headers["dlq.source"]) == (
        b"invalid_field",
        b"amount: not a number",
        b"17",
        b"test",
    )
    assert dead.value is not None
    assert b'"Amount":"ten"' in dead.value
    assert bulk.counters.rejected == 1


def test_records_without_an_acknowledgement_are_counted_and_end_the_run_with_an_error() -> None:
    producer = Recorder()
    producer.lost = {1, 3}
    bulk = make(producer)
    bulk.send(columns([0, 1, 2, 3, 4]))
    with pytest.raises(DeliveryIncomplete, match="2 records were not delivered"):
        bulk.finish()
    assert bulk.undelivered == 2


def test_a_kafka_that_comes_back_in_time_gets_everything() -> None:
    producer, time = Recorder(), FakeTime()
    producer.unavailable = True

    def wait(seconds: float) -> bool:
        time.wait(seconds)
        producer.unavailable = time.seconds < 20
        return False

    bulk = BulkProducer(producer, BulkOptions(source="test"), clock=time, wait=wait)
    bulk.send(columns([0, 1, 2]))
    bulk.finish()
    assert order(producer) == ["t0", "t1", "t2"]


def test_a_kafka_that_stays_unavailable_ends_the_run_after_the_patience() -> None:
    producer, time = Recorder(), FakeTime()
    producer.unavailable = True
    with pytest.raises(DeliveryIncomplete, match="1 records were not delivered"):
        make(producer, time, patience_s=30).send(columns([0]))
    assert 30 <= time.seconds < 31
