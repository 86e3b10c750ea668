"""Offsets of the group that are gone, or out of range: where a loop goes on, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from tests.support.loop_rig import GROUP, P0, SOURCE, Rig


def filled() -> Rig:
    rig = Rig()
    rig.fill(b"a", b"b", b"c", b"d")
    return rig


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"centinela_consumer_{name}_total", {"topic": SOURCE}) or 0.0


def events(logs: Sequence[Mapping[str, object]]) -> list[str]:
    return [str(entry["event"]) for entry in logs]


def test_what_the_handler_knows_counts_as_committed_where_the_group_has_nothing() -> None:
    rig = filled()
    rig.handler.known, rig.handler.restore = {P0: 3}, {P0: 1}
    before = counted("offsets_missing")
    with capture_logs() as logs:
        rig.steps()

    assert rig.handler.told("assigned", "replay") == [("assigned", P0, 3), ("replay", [b"b", b"c"])]
    assert rig.sink() == [b"d"]
    assert "group.offset_missing" in events(logs)
    assert counted("offsets_missing") == before + 1


def test_a_group_that_never_read_begins_at_the_beginning_and_nothing_is_missed() -> None:
    rig = filled()
    before = counted("offsets_missing")
    rig.steps()

    assert rig.sink() == [b"a", b"b", b"c", b"d"]
    assert counted("offsets_missing") == before


def test_records_that_expired_unread_are_counted_and_reading_goes_on_with_the_first_that_is_kept() -> None:
    rig = filled()
    rig.broker.group(GROUP).committed[P0] = 1
    rig.broker.expire(P0, 3)
    before = counted("offsets_expired")
    with capture_logs() as logs:
        rig.steps()

    assert rig.sink() == [b"d"]
    assert rig.committed() == {P0: 4}
    assert counted("offsets_expired") == before + 2
    assert "partition.records_expired" in events(logs)


def test_an_offset_past_the_end_is_brought_back_to_it_where_the_handler_knows_its_log() -> None:
    rig = filled()
    rig.broker.group(GROUP).committed[P0] = 9
    rig.handler.known = {P0: 9}
    rig.steps()
    rig.fill(b"e")
    rig.steps()

    assert rig.sink() == [b"e"]


def test_an_offset_past_the_end_of_a_log_that_nobody_knows_is_said_and_all_of_it_is_read() -> None:
    rig = filled()
    rig.broker.group(GROUP).committed[P0] = 9
    before = counted("offsets_missing")
    rig.steps()

    assert rig.sink() == [b"a", b"b", b"c", b"d"]
    assert counted("offsets_missing") == before + 1


def test_a_replay_of_what_has_expired_begins_with_the_first_that_is_kept() -> None:
    rig = filled()
    rig.broker.group(GROUP).committed[P0] = 3
    rig.broker.expire(P0, 2)
    rig.handler.restore = {P0: 1}
    rig.steps()

    assert rig.handler.told("replay") == [("replay", [b"c"])]
    assert rig.sink() == [b"d"]
