"""A group that got another name goes on where it was under its former one."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from centinela.consuming.carry_over import OffsetCarryOver
from centinela.errors import DependencyUnavailable
from centinela.groups import ConsumerGroup
from centinela.kafka.port import TopicPartition
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeGroupAdmin
from tests.support.loop_rig import GROUP, P0, P1, SOURCE, Rig

FORMER = "before"


def renamed(broker: FakeBroker, former: str | None = FORMER) -> OffsetCarryOver:
    return OffsetCarryOver(ConsumerGroup(GROUP, former), lambda: FakeConsumer(broker, FORMER), FakeGroupAdmin(broker))


def started(broker: FakeBroker, *, former: str | None = FORMER) -> Rig:
    return Rig(broker=broker, carry_over=renamed(broker, former))


@pytest.fixture
def broker() -> FakeBroker:
    """Four records in two partitions, of which the former group has committed some of the first."""
    broker = FakeBroker(partitions=2)
    for value in (b"a", b"b", b"c"):
        broker.append(SOURCE, value, b"k", partition=0)
    broker.append(SOURCE, b"d", b"k", partition=1)
    broker.group(FORMER).committed.update({P0: 2})
    return broker


def test_a_loop_goes_on_where_its_group_was_under_its_former_name(broker: FakeBroker) -> None:
    rig = started(broker)
    with capture_logs() as logs:
        rig.steps()

    assert sorted(rig.sink(), key=str) == [b"c", b"d"]
    [carried] = [entry for entry in logs if entry["event"] == "group.offsets_carried_over"]
    assert (carried["former_group"], carried["group"]) == (FORMER, GROUP)
    assert carried["offsets"] == {f"{SOURCE}-0": 2}


def test_offsets_are_carried_over_once(broker: FakeBroker) -> None:
    first = started(broker)
    first.steps()
    first.loop.close()
    broker.group(FORMER).committed[P0] = 0
    with capture_logs() as logs:
        second = started(broker)
        second.steps()

    assert second.committed() == {P0: 3, P1: 1}
    assert len(second.sink()) == 2
    assert "group.offsets_carried_over" not in [entry["event"] for entry in logs]


def test_what_the_group_has_committed_itself_is_kept(broker: FakeBroker) -> None:
    broker.group(GROUP).committed[P0] = 1
    broker.group(FORMER).committed[P1] = 1
    rig = started(broker)
    rig.steps()

    assert sorted(rig.sink(), key=str) == [b"b", b"c"]


def test_where_the_group_has_lost_its_offsets_those_of_its_former_name_are_out_of_date(broker: FakeBroker) -> None:
    carry = OffsetCarryOver(
        ConsumerGroup(GROUP, FORMER),
        lambda: FakeConsumer(broker, FORMER),
        FakeGroupAdmin(broker),
        has_position=lambda partition: partition == P0,
    )
    rig = Rig(broker=broker, carry_over=carry)
    rig.handler.known = {P0: 3}
    rig.steps()

    assert rig.sink() == [b"d"]


def test_the_loop_waits_while_the_former_group_has_members(broker: FakeBroker) -> None:
    old = FakeConsumer(broker, FORMER)
    old.subscribe([SOURCE])
    old.poll(0, 1)
    rig = started(broker)
    rig.steps()
    assert rig.sink() == []
    assert "end the processes of the earlier version" in rig.health.unmet()["kafka"]

    old.take_rebalance()
    old.commit({P0: 3})
    old.close()
    rig.steps()

    assert rig.sink() == [b"d"]
    assert rig.health.ready


@pytest.mark.parametrize("former", [FORMER, None])
def test_a_group_without_a_past_begins_at_the_beginning(former: str | None) -> None:
    broker = FakeBroker(partitions=1)
    broker.append(SOURCE, b"a", b"k")
    elsewhere = FakeConsumer(broker, FORMER)
    elsewhere.subscribe(["other"])
    elsewhere.poll(0, 1)
    rig = started(broker, former=former)
    rig.steps()

    assert rig.sink() == [b"a"]


def test_brokers_that_do_not_answer_are_waited_for(broker: FakeBroker) -> None:
    carry_over, reader = renamed(broker), FakeConsumer(broker, GROUP)
    broker.unavailable = True

    with pytest.raises(DependencyUnavailable):
        carry_over(reader, [SOURCE])
    broker.unavailable = False
    carry_over(reader, [SOURCE])

    assert broker.committed(GROUP) == {TopicPartition(SOURCE, 0): 2}
