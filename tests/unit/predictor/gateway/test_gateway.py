"""The gateway's core: one transaction id, one verdict; no answer before the broker has the record."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import msgspec
import pytest

from centinela.errors import InvalidRecord
from centinela.events import TransactionReceived
from centinela.features.layout import unpack_rows
from centinela.kafka.headers import header
from centinela.web.backpressure import Deadline
from centinela.web.refusals import RequestRefused
from centinela_predictor.gateway.messages import PredictCall
from centinela_predictor.gateway.requests import PredictRequest
from centinela_predictor.gateway.verdict_cache import GivenVerdict, VerdictCache
from centinela_predictor.state.admission import verdict_fault
from tests.support.gateway_world import DECODE, LAYOUT, NOW, TRACE, World, running_world, tx
from tests.support.served_models import FakeScorer, served


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as world:
        yield world


def test_the_log_has_the_transaction_with_the_verdict_that_was_answered(world: World) -> None:
    [answer] = world.ask(
        tx(user_id="u", terminal_id="t", currency="USD", attributes={"v1": 2.0}, occurred_at=NOW - timedelta(hours=1))
    )

    assert (answer.is_fraud, answer.decision, answer.fraud_probability) == (True, "decline", 0.912)
    assert (answer.model_version, answer.variant, answer.threshold, answer.repeated) == ("1", "champion", 0.8, False)
    assert answer.reasons == ("amount=912.00 above 90% of reference",)
    [record] = world.broker.sent
    assert (record.topic, record.key, record.partition) == ("transactions", b"u", None)
    event = DECODE(record.value)
    assert msgspec.structs.replace(event, verdict=None) == TransactionReceived(
        transaction_id="tx-1",
        occurred_at=NOW - timedelta(hours=1),
        amount=912.0,
        user_id="u",
        terminal_id="t",
        currency="USD",
        attributes={"v1": 2.0},
    )
    assert event.verdict is not None
    assert (event.verdict.origin, event.verdict.decision, event.verdict.score) == ("gateway", "decline", 0.912)
    assert (event.verdict.feature_set, event.verdict.scored_at, event.verdict.reasons) == (
        LAYOUT.id,
        NOW,
        answer.reasons,
    )
    assert unpack_rows([event.verdict.features or b""], len(LAYOUT.names))[0, 0] == 912.0
    assert header(record.headers, "traceparent") == TRACE
    assert header(record.headers, "x-request-id") == "req-1"
    assert header(record.headers, "ce_type") == "TransactionReceived"


def test_a_refund_is_let_through_by_no_model_among_purchases_that_are_scored(world: World) -> None:
    requests = [tx("p1"), tx("r", kind="refund", user_id="u"), tx("p2", amount=5.0)]

    first, refund, second = world.ask(*requests)

    assert [first.fraud_probability, second.fraud_probability] == [0.912, 0.005]
    assert (refund.decision, refund.is_fraud, refund.fraud_probability) == ("approve", False, None)
    assert (refund.variant, refund.model_version, refund.threshold) == ("none", None, None)
    assert refund.reasons == ("refund: not scored",)
    event = DECODE(world.broker.sent[1].value)
    assert (event.kind, verdict_fault(event.verdict, event.kind)) == ("refund", None)
    assert world.ask(tx("r", kind="refund", user_id="u")) == [msgspec.structs.replace(refund, repeated=True)]
    with pytest.raises(RequestRefused) as refused:
        world.ask(tx("r", user_id="u"))
    assert (refused.value.status, refused.value.field) == (409, "kind")


def test_the_log_says_in_which_currency_the_features_were_made(world: World) -> None:
    world.ask(tx("usd", currency="USD"), tx("eur"))
    verdicts = [DECODE(record.value).verdict for record in world.broker.sent]
    assert [verdict and verdict.feature_currency for verdict in verdicts] == ["EUR", None]


def test_a_missing_id_is_made_up_and_keys_the_record_where_no_user_is_known(world: World) -> None:
    first, second = world.ask(tx(None, 10), tx(None, 10))
    assert first.transaction_id != second.transaction_id
    assert [record.key for record in world.broker.sent] == [
        first.transaction_id.encode(),
        second.transaction_id.encode(),
    ]
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
    assert sorted(DECODE(record.value).transaction_id for record in world.broker.sent) == [
        *(f"own-{n}" for n in range(8)),
        "twin",
    ]


def test_one_batch_may_name_a_transaction_twice(world: World) -> None:
    first, again = world.ask(tx(), tx())
    assert (first.repeated, again.repeated, len(world.broker.sent)) == (False, True, 1)


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (tx(amount=913.0), "amount"),
        (tx(user_id="x"), "user_id"),
        (tx(terminal_id="x"), "terminal_id"),
        (tx(currency="USD"), "currency"),
        (tx(occurred_at=NOW - timedelta(days=1)), "occurred_at"),
        (tx(attributes={"v1": 1.0}), "attributes"),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_the_same_id_with_other_values_is_a_conflict_and_nothing_is_written(
    world: World, other: PredictRequest, field: str, together: bool
) -> None:
    if not together:
        world.ask(tx())
    before = len(world.broker.sent)
    with pytest.raises(RequestRefused) as refused:
        world.ask(*([tx()] if together else []), tx("new", 1.0), other)
    assert (refused.value.status, refused.value.field) == (409, field)
    assert len(world.broker.sent) == before
    assert world.cache.get("new") is None


def test_a_record_that_the_log_will_not_take_is_too_large_and_forgotten(world: World) -> None:
    world.broker.refuses = InvalidRecord("too_large", "2000000 bytes")
    with pytest.raises(RequestRefused) as refused:
        world.ask(tx())
    assert (refused.value.status, refused.value.error) == (413, "too_large")
    assert world.cache.get("tx-1") is None


def test_a_record_that_the_stream_would_not_read_is_not_written(world: World) -> None:
    with pytest.raises(RequestRefused) as refused:
        world.ask(tx(attributes={f"a{n}": 1.0 for n in range(100_000)}))
    assert refused.value.status == 413
    assert world.broker.sent == []
    assert world.ask(tx())[0].repeated is False


def test_the_verdict_of_the_stream_is_the_first_verdict_where_it_came_first(world: World) -> None:
    streamed = GivenVerdict(
        origin="stream",
        transaction_id="tx-1",
        occurred_at=NOW,
        amount=912.0,
        decision="approve",
        variant="challenger",
        scored_at=NOW,
        score=0.2,
        threshold=0.7,
        model_version="9",
    )
    world.cache.add_from_log(streamed, final=True)
    [answer] = world.ask(tx(attributes={"v1": 4.0}))
    assert (answer.decision, answer.model_version, answer.variant, answer.repeated) == (
        "approve",
        "9",
        "challenger",
        True,
    )
    assert world.broker.sent == []
    with pytest.raises(RequestRefused):
        world.ask(tx(amount=1.0))


def test_a_transaction_that_came_by_another_way_and_has_no_verdict_yet_is_left_to_the_stream(world: World) -> None:
    with pytest.raises(RequestRefused) as refused:
        world.ask(tx("new"), tx("from-ingest"))
    assert (refused.value.status, refused.value.error, refused.value.field) == (409, "already_in_log", "transaction_id")
    assert world.broker.sent == []
    assert world.cache.get("new") is None


def test_a_verdict_of_predictions_replaces_that_of_a_gateway(world: World) -> None:
    world.ask(tx(attributes={"v1": 4.0}))
    final = GivenVerdict(
        origin="stream",
        transaction_id="tx-1",
        occurred_at=NOW,
        amount=912.0,
        decision="review",
        variant="champion",
        scored_at=NOW,
        score=0.6,
    )
    world.cache.add_from_log(final, final=True)
    world.cache.add_from_log(msgspec.structs.replace(final, decision="approve"), final=False)
    [answer] = world.ask(tx(attributes={"v1": 4.0}))
    assert answer.decision == "review"
    with pytest.raises(RequestRefused):
        world.ask(tx(attributes={"v1": 5.0}))


def test_the_book_forgets_the_oldest_first() -> None:
    cache = VerdictCache(2)
    for n in range(3):
        cache.add_from_log(
            GivenVerdict(
                origin="stream",
                transaction_id=str(n),
                occurred_at=NOW,
                amount=1,
                decision="approve",
                variant="none",
                scored_at=NOW,
            ),
            final=True,
        )
    assert [cache.get(str(n)) is not None for n in range(3)] == [False, True, True]
    assert len(cache) == 2


def test_a_call_that_makes_the_deciding_fail_fails_alone() -> None:
    world = World()
    good, bad = (
        PredictCall([request], TRACE, "r", Deadline(world.clock, None, 10.0))
        for request in (tx("good", 1.0), tx("bad", 13.0))
    )
    world.gateway.serve([good, bad])
    with pytest.raises(ZeroDivisionError):
        bad.future.result(0)
    world.start().stop()
    assert good.future.result(0)[0].transaction_id == "good"


def test_past_the_queue_limit_requests_are_refused() -> None:
    world = World(queue_limit=2)
    futures = [world.submit(tx(str(n))) for n in range(2)]
    with pytest.raises(RequestRefused) as refused:
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
