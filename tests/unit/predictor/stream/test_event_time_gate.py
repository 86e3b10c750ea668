"""The stream's gate: partitions apart in event time, late transactions, idle partitions."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from prometheus_client import REGISTRY

from centinela.features.layout import unpack_rows
from centinela.features.state.terminals import SKEW_MS
from centinela_predictor.state.gate import Gate
from centinela_predictor.state.terminal_activity import IDLE, unpack_block
from centinela_predictor.stream.deferral import StreamLimits
from tests.support.predictor_world import LAYOUT, NOW, START, World, transaction

DAY = timedelta(days=1)


def test_a_partition_far_ahead_waits_until_the_others_have_caught_up(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=2)
    process = world.stream(limits=StreamLimits(idle_after_s=1e6, gate_patience_s=1e6))
    world.send(transaction(1, user="a", terminal="m"), partition=0)
    world.send(transaction(2, user="b", terminal="m"), partition=1)
    process.run_until_verdicts(2)
    world.send(transaction(3, user="a", terminal="m", at=START + 8 * DAY), partition=0)
    for _ in range(50):
        process.step()
    held = len(world.predictions())

    world.send(transaction(4, user="b", terminal="m", at=START + 3 * DAY), partition=1)
    process.run_until_verdicts(4)

    assert held == 2
    third = unpack_rows([world.verdicts()["t00003"].features], len(LAYOUT.names))[0]
    assert third[LAYOUT.names.index("terminal_count_7d")] == 2


def test_a_late_event_of_a_partition_behind_counts_in_the_windows_of_one_that_is_days_ahead(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=2)
    process = world.stream(limits=StreamLimits(idle_after_s=1e6, gate_patience_s=1e6))
    world.send(transaction(1, user="a", terminal="m"), partition=0)
    world.send(transaction(2, user="b", terminal="m", at=START + 2 * DAY), partition=1)
    process.run_until_verdicts(2)
    world.send(transaction(3, user="a", terminal="m", at=START + 8 * DAY), partition=0)
    for _ in range(50):
        process.step()

    world.send(
        transaction(4, user="c", terminal="m", at=START + DAY),
        transaction(5, user="b", terminal="m", at=START + 3 * DAY),
        partition=1,
    )
    process.run_until_verdicts(5)

    third = unpack_rows([world.verdicts()["t00003"].features], len(LAYOUT.names))[0]
    assert third[LAYOUT.names.index("terminal_count_7d")] == 2


def test_late_transactions_are_counted(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=1)
    before = [_late(outcome) for outcome in ("accepted", "too_late")]

    world.send(*(transaction(n, at=START + days * DAY) for n, days in enumerate((9, 8, 6, 10))))
    world.stream().run_until_verdicts(4)

    assert [_late(outcome) for outcome in ("accepted", "too_late")] == [before[0] + 1, before[1] + 1]


def _late(outcome: str) -> float:
    return REGISTRY.get_sample_value("centinela_stream_late_total", {"outcome": outcome}) or 0.0


def test_a_transaction_without_terminal_waits_for_nobody(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=2)
    process = world.stream(limits=StreamLimits(idle_after_s=1e6))

    world.send(transaction(1), transaction(2, at=START + 100 * DAY), partition=0)

    process.run_until_verdicts(2)


def test_an_idle_partition_holds_up_nobody_and_says_so_once(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=2)
    world.send(transaction(1, terminal="m"), transaction(2, terminal="m", at=START + 100 * DAY), partition=0)
    process = world.stream(limits=StreamLimits(idle_after_s=1.0))

    process.run_until_verdicts(2)
    for _ in range(500):
        process.step()

    marks = [unpack_block(r.value).watermark for r in world.broker.records("terminal-activity") if r.partition == 1]
    assert marks == [IDLE]


def test_a_partition_that_was_idle_and_has_records_again_is_waited_for_though_its_owner_died(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=2)
    world.send(transaction(1, user="b", terminal="m"), partition=1)
    world.send(transaction(2, user="a", terminal="m"), partition=0)
    process = world.stream(limits=StreamLimits(idle_after_s=1.0, gate_patience_s=1e6))
    process.run_until_verdicts(2)
    process.run_until(
        lambda: (
            {r.partition for r in world.broker.records("terminal-activity") if unpack_block(r.value).watermark == IDLE}
            == {0, 1}
        )
    )
    process.kill()

    world.send(transaction(3, user="b", terminal="m", at=START + DAY), partition=1)
    world.send(transaction(4, user="a", terminal="m", at=START + 12 * DAY), partition=0)
    first_of_partition_0 = world.stream(batch=1, limits=StreamLimits(idle_after_s=1.0, gate_patience_s=1e6))
    first_of_partition_0.run_until_verdicts(4)

    fourth = unpack_rows([world.verdicts()["t00004"].features], len(LAYOUT.names))[0]
    assert fourth[LAYOUT.names.index("terminal_count_7d")] == 3


def test_an_idle_partition_is_believed_as_long_as_it_ends_where_it_did() -> None:
    gate = Gate([0, 1])
    gate.announce(0, 100)
    gate.announce(1, 50)
    gate.announce(1, IDLE, end=7)

    assert (gate.limit, gate.announced(1)) == (100 + SKEW_MS, IDLE)
    assert gate.doubtful(50 + SKEW_MS) == {}
    assert gate.doubtful(51 + SKEW_MS) == {1: 7}
    restored = Gate([0, 1])
    restored.restore(gate.facts() | {"offset:labels:0": 4})
    gate.disbelieve(1)
    assert (gate.limit, gate.announced(1)) == (50 + SKEW_MS, 50)
    assert (restored.limit, restored.doubtful(51 + SKEW_MS)) == (100 + SKEW_MS, {1: 7})


def test_a_transaction_that_waited_too_long_is_scored_all_the_same(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=2)
    process = world.stream(limits=StreamLimits(idle_after_s=1e6, gate_patience_s=30.0))
    world.send(transaction(1, terminal="m"), transaction(2, terminal="m", at=START + DAY), partition=0)

    process.run_until_verdicts(2, pace_s=0.5)

    assert world.clock.now() - NOW > timedelta(seconds=30)
