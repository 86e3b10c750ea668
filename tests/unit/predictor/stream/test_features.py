"""The features that the stream serves are those of the whole table, whatever the batches, partitions, crashes and
aborts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from centinela.errors import TransactionAborted
from centinela.events import AttachedVerdict, LabelReported, TransactionReceived
from centinela.features.layout import FeatureLayout
from centinela.features.spec import Feature
from centinela.times import DAY_MS, HOUR_MS
from tests.support.predictor_world import START, Process, World, vectors_of_the_whole_table

N = 600
HISTORY = AttachedVerdict(origin="history", decision="approve", variant="none")


def traffic(history: bool = False) -> tuple[list[TransactionReceived], list[LabelReported]]:
    """Sixty days in order of time, with frauds reported within a week, some withdrawn later; some without user or
    terminal."""
    random = np.random.default_rng(5)
    minutes = np.sort(random.integers(0, 60 * 24 * 60, N)).tolist()
    transactions, labels = [], []
    for number, minute in enumerate(minutes):
        user, terminal = random.integers(0, 30), random.integers(0, 12)
        one = TransactionReceived(
            transaction_id=f"t{number:05d}",
            occurred_at=START + timedelta(minutes=minute),
            amount=int(random.integers(1, 90_000)) / 100,
            user_id=None if user == 0 else f"u{user}",
            terminal_id=None if terminal == 0 else f"m{terminal}",
            attributes={"v2": float(random.normal())},
            verdict=HISTORY if history else None,
        )
        transactions.append(one)
        if random.random() < 0.1:
            reported = one.occurred_at + timedelta(hours=int(random.integers(1, 150)))
            labels.append(
                LabelReported(
                    transaction_id=one.transaction_id,
                    is_fraud=True,
                    occurred_at=one.occurred_at,
                    reported_at=reported,
                    user_id=one.user_id,
                )
            )
            if random.random() < 0.3:
                corrected = reported + timedelta(hours=int(random.integers(-20, 400)))
                labels.append(
                    LabelReported(
                        transaction_id=one.transaction_id,
                        is_fraud=False,
                        occurred_at=one.occurred_at,
                        reported_at=corrected,
                        user_id=one.user_id,
                    )
                )
    return transactions, labels


def served_vectors(world: World) -> dict[str, bytes]:
    return {i: verdict.features for i, verdict in world.verdicts().items()}


@pytest.mark.parametrize(("partitions", "batch"), [(1, 7), (4, 1), (4, 16), (3, 1_000)])
@pytest.mark.parametrize("history", [False, True])
def test_a_log_read_at_full_speed_gives_the_features_of_the_whole_table(
    tmp_path: Path, partitions: int, batch: int, history: bool
) -> None:
    world = World(tmp_path, partitions, model=None if history else "1")
    transactions, labels = traffic(history)
    world.report(*labels)
    world.send(*transactions)

    world.stream(batch=batch).run_until_verdicts(N)

    assert served_vectors(world) == vectors_of_the_whole_table(transactions, labels)


def test_a_wall_clock_that_jumps_changes_no_feature_and_refuses_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, 3)
    transactions, labels = traffic()
    world.clock.set(transactions[-1].occurred_at)
    world.report(*labels)
    world.send(*transactions)

    for number, target in enumerate(range(60, N, 60)):
        process = world.stream(batch=20, snapshot_interval_s=0.05)
        process.run_until_verdicts(target)
        process.kill()
        world.clock.jump(timedelta(hours=20 if number % 2 else -20))
    world.stream(batch=20).run_until_verdicts(N)

    assert served_vectors(world) == vectors_of_the_whole_table(transactions, labels)
    assert world.dead() == []


@pytest.mark.parametrize("snapshot_interval_s", [0.0, 0.05, 1e9])
def test_processes_killed_again_and_again_leave_one_verdict_each_and_the_same_features(
    tmp_path: Path, snapshot_interval_s: float
) -> None:
    world = World(tmp_path, 3)
    transactions, labels = traffic()
    world.report(*labels)
    world.send(*transactions)

    for target in range(60, N, 60):
        process = world.stream(batch=20, snapshot_interval_s=snapshot_interval_s)
        process.run_until_verdicts(target)
        process.kill()
    world.stream(batch=20).run_until_verdicts(N)

    assert served_vectors(world) == vectors_of_the_whole_table(transactions, labels)
    assert (len(list(tmp_path.rglob("*.snapshot"))) > 0) == (snapshot_interval_s < 1e9)


EXTRA = (
    Feature("user_terminals_3d", "user", "distinct", 3 * DAY_MS, "terminal_id"),
    Feature("user_std_20d", "user", "std", 20 * DAY_MS),
    Feature("user_v2_max_9d", "user", "max", 9 * DAY_MS, "v2", HOUR_MS),
    Feature("user_ratio_7d", "user", "ratio_to_mean", 7 * DAY_MS),
    Feature("terminal_risk_20d", "terminal", "fraud_share", 20 * DAY_MS, delay_ms=10 * DAY_MS),
)


@pytest.mark.parametrize("snapshot_interval_s", [0.0, 1e9])
def test_extra_features_are_exact_through_kills_and_snapshots(tmp_path: Path, snapshot_interval_s: float) -> None:
    layout = FeatureLayout(("v1", "v2"), EXTRA)
    world = World(tmp_path, 3, layout=layout)
    transactions, labels = traffic()
    world.report(*labels)
    world.send(*transactions)

    for target in (150, 400):
        process = world.stream(batch=20, snapshot_interval_s=snapshot_interval_s)
        process.run_until_verdicts(target)
        process.kill()
    world.stream(batch=20).run_until_verdicts(N)

    assert served_vectors(world) == vectors_of_the_whole_table(transactions, labels, layout)
    assert {verdict.feature_set for verdict in world.verdicts().values()} == {layout.id}


def test_a_feature_on_a_column_that_was_not_stored_until_now_reads_the_log_once_more(tmp_path: Path) -> None:
    world = World(tmp_path, 2)
    transactions, labels = traffic()
    world.report(*labels)
    world.send(*transactions)
    before = world.stream(snapshot_interval_s=0.0)
    before.run_until_verdicts(300)
    before.end()

    world.layout = FeatureLayout(("v1", "v2"), EXTRA)
    world.stream(snapshot_interval_s=0.0).run_until_verdicts(N)

    expected = vectors_of_the_whole_table(transactions, labels) | {
        i: vector
        for i, vector in vectors_of_the_whole_table(transactions, labels, world.layout).items()
        if world.verdicts()[i].feature_set == world.layout.id
    }
    assert served_vectors(world) == expected
    assert sum(verdict.feature_set == world.layout.id for verdict in world.verdicts().values()) >= 200


def test_a_process_that_ends_in_good_order_leaves_the_next_nothing_to_replay(tmp_path: Path) -> None:
    world = World(tmp_path, 2)
    transactions, labels = traffic()
    world.report(*labels)
    world.send(*transactions[:300])
    first = world.stream()
    first.run_until_verdicts(300)
    first.end()
    replayed: list[object] = []

    second = world.stream()
    second.handler.replay = replayed.extend  # type: ignore[method-assign, assignment]
    world.send(*transactions[300:])
    second.run_until_verdicts(N)

    assert replayed == []
    assert served_vectors(world) == vectors_of_the_whole_table(transactions, labels)


@pytest.mark.parametrize("snapshot_interval_s", [0.0, 1e9])
def test_aborted_transactions_leave_no_trace_in_the_state(tmp_path: Path, snapshot_interval_s: float) -> None:
    world = World(tmp_path, 2)
    transactions, labels = traffic()
    world.report(*labels)
    world.send(*transactions)
    process = world.stream(batch=40, snapshot_interval_s=snapshot_interval_s)

    for target in (50, 200, 400):
        process.run_until_verdicts(target)
        process.producer.fail_next_commit(TransactionAborted("the group moved on"))
    process.run_until_verdicts(N)

    assert process.producer.aborts >= 3
    assert served_vectors(world) == vectors_of_the_whole_table(transactions, labels)


def test_two_replicas_share_the_partitions_and_one_takes_over_from_the_other(tmp_path: Path) -> None:
    world = World(tmp_path, 4)
    transactions, labels = traffic()
    world.report(*labels)
    world.send(*transactions[:400])
    replicas = [world.stream("a", batch=15), world.stream("b", batch=15)]

    _alternate(replicas, lambda: len(world.predictions()) >= 150)
    replicas[0].kill()
    world.send(*transactions[400:])
    replicas[1].run_until_verdicts(N, steps=5_000)

    assert served_vectors(world) == vectors_of_the_whole_table(transactions, labels)


def test_snapshots_of_another_log_are_not_used(tmp_path: Path) -> None:
    first = World(tmp_path, 2)
    transactions, labels = traffic()
    first.report(*labels)
    first.send(*transactions)
    process = first.stream(snapshot_interval_s=0.0)
    process.run_until_verdicts(N)
    process.end()

    again = World(tmp_path, 2)
    again.report(*labels)
    again.send(*transactions)
    again.stream(snapshot_interval_s=0.0).run_until_verdicts(N)

    assert served_vectors(again) == vectors_of_the_whole_table(transactions, labels)


def test_a_damaged_snapshot_costs_a_longer_replay_and_nothing_else(tmp_path: Path) -> None:
    world = World(tmp_path, 2)
    transactions, labels = traffic()
    world.report(*labels)
    world.send(*transactions)
    process = world.stream(batch=40, snapshot_interval_s=0.0)
    process.run_until_verdicts(300)
    process.kill()
    for path in tmp_path.rglob("*.snapshot"):
        path.write_bytes(path.read_bytes()[:-5])

    world.stream(batch=40).run_until_verdicts(N)

    assert served_vectors(world) == vectors_of_the_whole_table(transactions, labels)


def _alternate(replicas: list[Process], done: Callable[[], bool]) -> None:
    for _ in range(3_000):
        if done():
            return
        for replica in replicas:
            replica.step()
    raise AssertionError("not done in time")
