"""The gateway's core while Kafka is unavailable: an answer once the disk has the record, and what happens to it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from centinela.web.refusals import RequestRefused
from centinela_predictor.gateway.gateway import NotReady
from centinela_predictor.gateway.outbox import OutboxFull
from centinela_predictor.gateway.verdict_cache import GivenVerdict
from tests.support.gateway_world import DECODE, NOW, World, drain, running_world, tx
from tests.support.served_models import served


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as world:
        yield world


def test_without_kafka_the_verdict_is_in_the_outbox_when_it_is_answered_and_a_retry_gets_it(world: World) -> None:
    world.broker.unavailable = True
    [first] = world.ask(tx())
    [kept] = world.outbox.oldest(10)
    event = DECODE(kept.outgoing.value)
    assert (kept.transaction_id, event.verdict.score if event.verdict else None) == ("tx-1", first.fraud_probability)
    world.slot.swap("champion", served("2"))
    assert world.ask(tx()) == [msgspec.structs.replace(first, repeated=True)]
    assert len(world.outbox) == 1
    with pytest.raises(RequestRefused):
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


def test_a_full_outbox_accepts_no_new_transaction_and_a_refused_one_is_decided_again_when_there_is_room() -> None:
    world = World(outbox_records=1).start()
    world.broker.unavailable = True
    [kept] = world.ask(tx("kept"))
    for _ in range(3):
        with pytest.raises(OutboxFull):
            world.ask(tx("refused"))
    with pytest.raises(OutboxFull):
        world.ask(tx("kept"), tx("other"))
    assert world.ask(tx("kept")) == [msgspec.structs.replace(kept, repeated=True)]
    assert len(world.cache) == 1

    world.broker.unavailable = False
    drain(world)
    world.slot.swap("champion", served("2"))
    [answer] = world.ask(tx("refused"))
    world.stop()
    assert answer.model_version == "2"
    assert [DECODE(record.value).transaction_id for record in world.broker.sent] == ["kept", "refused"]


def test_a_batch_that_does_not_fit_is_refused_as_a_whole_and_a_smaller_one_is_accepted() -> None:
    world = World(outbox_records=2)
    world.link.down("unavailable")
    big, small = world.submit(*[tx(f"b{n}") for n in range(2)]), world.submit(tx("s"))
    world.start().stop()
    assert [answer.transaction_id for answer in big.result(0)] == ["b0", "b1"]
    with pytest.raises(OutboxFull):
        small.result(0)
    assert world.cache.get("s") is None


def test_what_the_outbox_has_is_sent_in_order_and_then_records_go_straight_again(world: World) -> None:
    world.broker.unavailable = True
    for n in range(5):
        world.ask(tx(f"kept-{n}", user_id="u"))
    world.broker.unavailable = False
    world.ask(tx("behind", user_id="u"))
    drain(world)
    world.ask(tx("straight", user_id="u"))
    assert [DECODE(record.value).transaction_id for record in world.broker.sent] == [
        *(f"kept-{n}" for n in range(5)),
        "behind",
        "straight",
    ]
    assert (len(world.outbox), world.link.outage) == (0, None)


def test_nothing_overtakes_what_waits_in_the_outbox_or_is_on_its_way_there_though_kafka_is_back(world: World) -> None:
    world.broker.unavailable = True
    world.ask(tx("kept"))
    world.broker.unavailable = False
    world.link.up()
    assert not world.link.direct()

    drain(world)
    assert len(world.outbox) == 0
    assert not world.link.direct()
    world.link.settled(2)
    assert world.link.direct()


def test_what_the_log_is_known_to_have_leaves_the_outbox_unsent(world: World) -> None:
    world.broker.unavailable = True
    world.ask(tx("came-by-itself"), tx("did-not"))
    world.broker.unavailable = False
    entry = world.cache.get("came-by-itself")
    assert entry is not None
    world.cache.add_from_log(entry.verdict, final=False)
    drain(world)
    assert [DECODE(record.value).transaction_id for record in world.broker.sent] == ["did-not"]
    assert len(world.outbox) == 0


def test_a_record_that_kafka_never_accepts_does_not_delay_others(world: World) -> None:
    world.broker.unavailable = True
    world.ask(tx("never"))
    world.ask(tx("later"))
    world.broker.unavailable = False
    world.broker.refuses_id = "never"
    drain(world)
    assert [DECODE(record.value).transaction_id for record in world.broker.sent] == ["later"]
    assert len(world.outbox) == 0


def test_before_it_is_ready_a_gateway_gives_the_verdicts_it_knows_and_no_new_one(world: World) -> None:
    [first] = world.ask(tx())
    world.missing = {"transactions": "being read"}
    assert world.ask(tx()) == [msgspec.structs.replace(first, repeated=True)]
    with pytest.raises(NotReady, match="transactions: being read"):
        world.ask(tx("new"))


def test_a_verdict_that_the_log_may_not_have_is_not_forgotten_however_many_follow() -> None:
    world = World().start()
    world.broker.unavailable = True
    world.ask(tx("kept"))
    for n in range(1_500):
        world.cache.add_from_log(
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
    world.stop()
    assert world.cache.get("kept") is not None
    assert world.cache.get("0") is None
