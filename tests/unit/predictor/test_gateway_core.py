"""The gateway's core: one transaction id, one verdict; no answer before the broker has the record."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from centinela.backpressure import Deadline, RequestUnserved
from centinela.clock import FixedClock
from centinela.codec import Decoder
from centinela.errors import DependencyUnavailable, InvalidRecord
from centinela.events import TransactionReceived
from centinela.features.layout import FeatureLayout, unpack_rows
from centinela.kafka.port import Delivery, Outgoing
from centinela.telemetry.correlation import header
from centinela_predictor.calls import Answer, Call
from centinela_predictor.dispatch import Dispatch
from centinela_predictor.fakes import FakeScorer, served
from centinela_predictor.gateway import Gateway, NotReady
from centinela_predictor.link import Link
from centinela_predictor.model_slot import ModelSlot
from centinela_predictor.outbox import Outbox, OutboxFull
from centinela_predictor.outbox_drain import OutboxDrain
from centinela_predictor.requests import PredictRequest, RefusedRequest
from centinela_predictor.routing import Router
from centinela_predictor.scoring import ScoringCore
from centinela_predictor.verdicts import GivenVerdict, VerdictBook

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
LAYOUT = FeatureLayout(("v1",))
DECODE = Decoder(TransactionReceived).decode


class AmountOnly:
    """Features that are the amount and nothing else; the amount 13 cannot be served."""

    layout = LAYOUT

    def seen(self, transactions: list[TransactionReceived]) -> list[bool]:
        return [t.transaction_id == "from-ingest" for t in transactions]

    def features(self, transactions: list[TransactionReceived]) -> NDArray[np.float64]:
        if any(t.amount == 13 for t in transactions):
            raise ZeroDivisionError("a fault of ours")
        matrix = np.full((len(transactions), len(LAYOUT.names)), np.nan)
        matrix[:, 0] = [t.amount for t in transactions]
        return matrix


class Refused:
    """The way of a record that the broker does not take."""

    def wait(self, timeout_s: float) -> None:
        raise InvalidRecord("too_large", "the topic's limit")


class Broker:
    """A producer whose acknowledgements a test gives."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.acknowledges = threading.Event()
        self.acknowledges.set()
        self.away = False
        self.refuses: InvalidRecord | None = None
        self.refuses_id: str | None = None

    def send(self, record: Outgoing) -> Delivery:
        if self.away:
            raise DependencyUnavailable("Kafka does not answer")
        if self.refuses:
            raise self.refuses
        if self.refuses_id and DECODE(record.value).transaction_id == self.refuses_id:
            return Refused()
        self.sent.append(record)
        return self

    def wait(self, timeout_s: float) -> None:
        if not self.acknowledges.wait(timeout_s):
            raise DependencyUnavailable("not acknowledged in time")

    def flush(self, timeout_s: float) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Nothing to release."""


def drain(world: World) -> None:
    """Send what waits in the outbox, until nothing more can be done."""
    closing = threading.Event()
    closing.set()
    OutboxDrain(world.outbox, world.broker, world.link, world.book, world.clock, closing).run()


class World:
    """A gateway with its threads, and what surrounds it."""

    def __init__(self, allowed_s: float = 20.0, queue_limit: int = 100, patience_s: float = 20.0, outbox_records: int = 100) -> None:
        self.slot, self.broker, self.book, self.clock = ModelSlot(), Broker(), VerdictBook(1_000), FixedClock(NOW)
        self.slot.swap("champion", served("1"))
        core = ScoringCore(self.slot, Router("salt", 0.0))
        self.outbox = Outbox(Path(":memory:"), self.clock, most_records=outbox_records, most_bytes=10_000_000)
        self.link = Link(self.outbox, self.clock)
        self.dispatch = Dispatch(self.broker, self.outbox, self.link, self.book, self.clock, patience_s)
        self.lacks: dict[str, str] = {}
        self.gateway = Gateway(core, AmountOnly(), self.dispatch, self.book, self.clock, queue_limit, lambda: self.lacks)
        self.allowed_s = allowed_s
        self.threads = [threading.Thread(target=run, daemon=True) for run in (self.gateway.work, self.dispatch.settle)]

    def start(self) -> World:
        for thread in self.threads:
            thread.start()
        return self

    def stop(self) -> None:
        self.broker.acknowledges.set()
        self.gateway.stop()
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()

    def ask(self, *requests: PredictRequest) -> list[Answer]:
        return self.submit(*requests).result(10)

    def submit(self, *requests: PredictRequest) -> Future[list[Answer]]:
        return self.gateway.submit(list(requests), TRACE, "req-1", Deadline(self.clock, None, self.allowed_s))


@pytest.fixture
def world() -> Iterator[World]:
    world = World().start()
    yield world
    world.stop()


def tx(transaction_id: str | None = "tx-1", amount: float = 912.0, **more: object) -> PredictRequest:
    return PredictRequest(transaction_id=transaction_id, amount=amount, **more)  # type: ignore[arg-type]


def test_the_log_has_the_transaction_with_the_verdict_that_was_answered(world: World) -> None:
    [answer] = world.ask(tx(user_id="u", terminal_id="t", currency="USD", attributes={"v1": 2.0}, occurred_at=NOW - timedelta(hours=1)))

    assert (answer.is_fraud, answer.decision, answer.fraud_probability) == (True, "decline", 0.912)
    assert (answer.model_version, answer.variant, answer.threshold, answer.repeated) == ("1", "champion", 0.8, False)
    assert answer.reasons == ("amount=912.00 above 90% of reference",)
    [record] = world.broker.sent
    assert (record.topic, record.key, record.partition) == ("transactions", b"u", None)
    event = DECODE(record.value)
    assert msgspec.structs.replace(event, verdict=None) == TransactionReceived(
        transaction_id="tx-1", occurred_at=NOW - timedelta(hours=1), amount=912.0, user_id="u", terminal_id="t", currency="USD",
        attributes={"v1": 2.0},
    )
    assert event.verdict is not None
    assert (event.verdict.origin, event.verdict.decision, event.verdict.score) == ("gateway", "decline", 0.912)
    assert (event.verdict.feature_set, event.verdict.scored_at, event.verdict.reasons) == (LAYOUT.id, NOW, answer.reasons)
    assert unpack_rows([event.verdict.features or b""], len(LAYOUT.names))[0, 0] == 912.0
    assert header(record.headers, "traceparent") == TRACE
    assert header(record.headers, "x-request-id") == "req-1"
    assert header(record.headers, "ce_type") == "TransactionReceived"


def test_a_missing_id_is_made_up_and_keys_the_record_where_no_user_is_known(world: World) -> None:
    first, second = world.ask(tx(None, 10), tx(None, 10))
    assert first.transaction_id != second.transaction_id
    assert [record.key for record in world.broker.sent] == [first.transaction_id.encode(), second.transaction_id.encode()]
    assert first.occurred_at == NOW


def test_no_answer_comes_before_the_acknowledgement(world: World) -> None:
    world.broker.acknowledges.clear()
    future = world.submit(tx())
    with pytest.raises(TimeoutError):
        future.result(0.05)
    world.broker.acknowledges.set()
    assert future.result(10)[0].transaction_id == "tx-1"


def test_a_retry_gets_the_first_verdict_even_from_a_later_model(world: World) -> None:
    [first] = world.ask(tx())
    world.slot.swap("champion", served("2", FakeScorer(lambda amounts: amounts * 0)))
    [again] = world.ask(tx())
    assert again == msgspec.structs.replace(first, repeated=True)
    assert len(world.broker.sent) == 1


def test_concurrent_twins_get_one_verdict_and_one_record(world: World) -> None:
    world.broker.acknowledges.clear()
    futures = [world.submit(tx("twin"), tx(f"own-{n}", 1.0)) for n in range(8)]
    world.broker.acknowledges.set()
    answers = [future.result(10) for future in futures]
    assert sorted(pair[0].repeated for pair in answers) == [False] + [True] * 7
    assert len({pair[0].scored_at for pair in answers}) == 1
    assert sorted(DECODE(record.value).transaction_id for record in world.broker.sent) == [*(f"own-{n}" for n in range(8)), "twin"]


def test_one_batch_may_name_a_transaction_twice(world: World) -> None:
    first, again = world.ask(tx(), tx())
    assert (first.repeated, again.repeated, len(world.broker.sent)) == (False, True, 1)


@pytest.mark.parametrize(
    ("other", "field"),
    [(tx(amount=913.0), "amount"), (tx(user_id="x"), "user_id"), (tx(terminal_id="x"), "terminal_id"), (tx(currency="USD"), "currency"),
     (tx(occurred_at=NOW - timedelta(days=1)), "occurred_at"), (tx(attributes={"v1": 1.0}), "attributes")],
)
@pytest.mark.parametrize("together", [False, True])
def test_the_same_id_with_other_values_is_a_conflict_and_nothing_is_written(world: World, other: PredictRequest, field: str, together: bool) -> None:
    if not together:
        world.ask(tx())
    before = len(world.broker.sent)
    with pytest.raises(RefusedRequest) as refused:
        world.ask(*([tx()] if together else []), tx("new", 1.0), other)
    assert (refused.value.status, refused.value.field) == (409, field)
    assert len(world.broker.sent) == before
    assert world.book.get("new") is None


def test_with_kafka_away_the_verdict_is_in_the_outbox_when_it_is_answered_and_a_retry_gets_it(world: World) -> None:
    world.broker.away = True
    [first] = world.ask(tx())
    [kept] = world.outbox.oldest(10)
    event = DECODE(kept.outgoing.value)
    assert (kept.transaction_id, event.verdict.score if event.verdict else None) == ("tx-1", first.fraud_probability)
    world.slot.swap("champion", served("2"))
    assert world.ask(tx()) == [msgspec.structs.replace(first, repeated=True)]
    assert len(world.outbox) == 1
    with pytest.raises(RefusedRequest):
        world.ask(tx(amount=1.0))


def test_what_kafka_does_not_acknowledge_in_its_time_goes_to_the_outbox_and_what_follows_behind_it() -> None:
    world = World(patience_s=0.02).start()
    world.broker.acknowledges.clear()
    world.ask(tx("late"))
    world.broker.acknowledges.set()
    world.ask(tx("after"))
    world.stop()
    assert [kept.transaction_id for kept in world.outbox.oldest(10)] == ["late", "after"]
    assert [DECODE(record.value).transaction_id for record in world.broker.sent] == ["late"]


def test_half_of_a_short_time_is_left_for_the_outbox() -> None:
    world = World(allowed_s=0.04).start()
    world.broker.acknowledges.clear()
    [answer] = world.ask(tx())
    world.stop()
    assert (answer.transaction_id, len(world.outbox)) == ("tx-1", 1)


def test_a_full_outbox_takes_no_new_transaction_and_a_refused_one_is_decided_anew_when_there_is_room() -> None:
    world = World(outbox_records=1).start()
    world.broker.away = True
    [kept] = world.ask(tx("kept"))
    for _ in range(3):
        with pytest.raises(OutboxFull):
            world.ask(tx("refused"))
    with pytest.raises(OutboxFull):
        world.ask(tx("kept"), tx("other"))
    assert world.ask(tx("kept")) == [msgspec.structs.replace(kept, repeated=True)]
    assert len(world.book) == 1

    world.broker.away = False
    drain(world)
    world.slot.swap("champion", served("2"))
    [answer] = world.ask(tx("refused"))
    world.stop()
    assert answer.model_version == "2"
    assert [DECODE(record.value).transaction_id for record in world.broker.sent] == ["kept", "refused"]


def test_a_batch_that_does_not_fit_is_refused_whole_and_a_smaller_one_beside_it_is_taken() -> None:
    world = World(outbox_records=2)
    world.link.lost("away")
    big, small = world.submit(*[tx(f"b{n}") for n in range(2)]), world.submit(tx("s"))
    world.start().stop()
    assert [answer.transaction_id for answer in big.result(0)] == ["b0", "b1"]
    with pytest.raises(OutboxFull):
        small.result(0)
    assert world.book.get("s") is None


def test_what_the_outbox_has_is_sent_in_order_and_then_records_go_straight_again(world: World) -> None:
    world.broker.away = True
    for n in range(5):
        world.ask(tx(f"kept-{n}", user_id="u"))
    world.broker.away = False
    world.ask(tx("behind", user_id="u"))
    drain(world)
    world.ask(tx("straight", user_id="u"))
    assert [DECODE(record.value).transaction_id for record in world.broker.sent] == [*(f"kept-{n}" for n in range(5)), "behind", "straight"]
    assert (len(world.outbox), world.link.away) == (0, None)


def test_what_the_log_is_known_to_have_leaves_the_outbox_unsent(world: World) -> None:
    world.broker.away = True
    world.ask(tx("came-by-itself"), tx("did-not"))
    world.broker.away = False
    entry = world.book.get("came-by-itself")
    assert entry is not None
    world.book.learn(entry.verdict, final=False)
    drain(world)
    assert [DECODE(record.value).transaction_id for record in world.broker.sent] == ["did-not"]
    assert len(world.outbox) == 0


def test_a_record_that_kafka_will_never_take_holds_up_no_other(world: World) -> None:
    world.broker.away = True
    world.ask(tx("never"))
    world.ask(tx("later"))
    world.broker.away = False
    world.broker.refuses_id = "never"
    drain(world)
    assert [DECODE(record.value).transaction_id for record in world.broker.sent] == ["later"]
    assert len(world.outbox) == 0


def test_before_it_is_ready_a_gateway_gives_the_verdicts_it_knows_and_no_new_one(world: World) -> None:
    [first] = world.ask(tx())
    world.lacks = {"transactions": "being read"}
    assert world.ask(tx()) == [msgspec.structs.replace(first, repeated=True)]
    with pytest.raises(NotReady, match="transactions: being read"):
        world.ask(tx("new"))


def test_a_verdict_that_the_log_may_not_have_is_not_forgotten_however_many_follow() -> None:
    world = World().start()
    world.broker.away = True
    world.ask(tx("kept"))
    for n in range(1_500):
        world.book.learn(GivenVerdict(transaction_id=str(n), occurred_at=NOW, amount=1, decision="approve", variant="none", scored_at=NOW), final=True)
    world.stop()
    assert world.book.get("kept") is not None
    assert world.book.get("0") is None


def test_a_record_that_the_log_will_not_take_is_too_large_and_forgotten(world: World) -> None:
    world.broker.refuses = InvalidRecord("too_large", "2000000 bytes")
    with pytest.raises(RefusedRequest) as refused:
        world.ask(tx())
    assert (refused.value.status, refused.value.error) == (413, "too_large")
    assert world.book.get("tx-1") is None


def test_a_record_that_the_stream_would_not_read_is_not_written(world: World) -> None:
    with pytest.raises(RefusedRequest) as refused:
        world.ask(tx(attributes={f"a{n}": 1.0 for n in range(100_000)}))
    assert refused.value.status == 413
    assert world.broker.sent == []
    assert world.ask(tx())[0].repeated is False


def test_the_verdict_of_the_stream_is_the_first_verdict_where_it_came_first(world: World) -> None:
    streamed = GivenVerdict(transaction_id="tx-1", occurred_at=NOW, amount=912.0, decision="approve", variant="challenger", scored_at=NOW,
                            score=0.2, threshold=0.7, model_version="9")
    world.book.learn(streamed, final=True)
    [answer] = world.ask(tx(attributes={"v1": 4.0}))
    assert (answer.decision, answer.model_version, answer.variant, answer.repeated) == ("approve", "9", "challenger", True)
    assert world.broker.sent == []
    with pytest.raises(RefusedRequest):
        world.ask(tx(amount=1.0))


def test_a_transaction_that_came_by_another_way_and_has_no_verdict_yet_is_left_to_the_stream(world: World) -> None:
    with pytest.raises(RefusedRequest) as refused:
        world.ask(tx("new"), tx("from-ingest"))
    assert (refused.value.status, refused.value.error, refused.value.field) == (409, "already_in_log", "transaction_id")
    assert world.broker.sent == []
    assert world.book.get("new") is None


def test_what_predictions_say_stands_over_what_a_gateway_said(world: World) -> None:
    world.ask(tx(attributes={"v1": 4.0}))
    final = GivenVerdict(transaction_id="tx-1", occurred_at=NOW, amount=912.0, decision="review", variant="champion", scored_at=NOW, score=0.6)
    world.book.learn(final, final=True)
    world.book.learn(msgspec.structs.replace(final, decision="approve"), final=False)
    [answer] = world.ask(tx(attributes={"v1": 4.0}))
    assert answer.decision == "review"
    with pytest.raises(RefusedRequest):
        world.ask(tx(attributes={"v1": 5.0}))


def test_the_book_forgets_the_oldest_first() -> None:
    book = VerdictBook(2)
    for n in range(3):
        book.learn(GivenVerdict(transaction_id=str(n), occurred_at=NOW, amount=1, decision="approve", variant="none", scored_at=NOW), final=True)
    assert [book.get(str(n)) is not None for n in range(3)] == [False, True, True]
    assert len(book) == 2


def test_a_call_that_makes_the_deciding_fail_fails_alone() -> None:
    world = World()
    good, bad = (Call([request], TRACE, "r", Deadline(world.clock, None, 10.0)) for request in (tx("good", 1.0), tx("bad", 13.0)))
    world.gateway.serve([good, bad])
    with pytest.raises(ZeroDivisionError):
        bad.future.result(0)
    world.start().stop()
    assert good.future.result(0)[0].transaction_id == "good"


def test_past_the_queue_limit_requests_are_refused() -> None:
    world = World(queue_limit=2)
    futures = [world.submit(tx(str(n))) for n in range(2)]
    with pytest.raises(RequestUnserved) as refused:
        world.submit(tx("third"))
    assert (refused.value.status, refused.value.error) == (429, "overloaded")
    world.start().stop()
    assert [future.result(0)[0].transaction_id for future in futures] == ["0", "1"]


def test_what_waits_at_the_stop_is_still_answered(world: World) -> None:
    world.broker.acknowledges.clear()
    futures = [world.submit(tx(str(n))) for n in range(20)]
    world.stop()
    assert [future.result(0)[0].transaction_id for future in futures] == [str(n) for n in range(20)]


def test_a_swap_under_concurrent_requests_loses_none(world: World) -> None:
    """Every request is answered, by one model or the other, wholly."""
    futures = []
    for n in range(400):
        if n % 40 == 0:
            world.slot.swap("champion", served(str(n), FakeScorer(threshold=0.8 + n / 10_000)))
        futures.append(world.submit(tx(f"s-{n}")))
        if n % 80 == 79:
            futures[-1].result(10)
    answers = [future.result(10)[0] for future in futures]
    assert [answer.transaction_id for answer in answers] == [f"s-{n}" for n in range(400)]
    assert all(answer.threshold == 0.8 + int(answer.model_version or 0) / 10_000 for answer in answers)
    assert len({answer.model_version for answer in answers}) > 1
