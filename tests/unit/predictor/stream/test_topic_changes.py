"""A topic that grows or is created again, and a predictor that joins late or on another machine: the features stay
those of the whole table."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from centinela.events import LabelReported, TransactionReceived, encode
from centinela.features.layout import unpack_rows
from centinela.features.snapshots.shared_store import SharedStorage
from centinela.kafka.partitioner import partition_of
from centinela_predictor.state.partition_store import LogChanged
from tests.support.predictor_world import (
    LAYOUT,
    START,
    Process,
    World,
    frauds_reported,
    transaction,
    vectors_of_the_whole_table,
)

N = 400
USERS = 40


def traffic() -> tuple[list[TransactionReceived], list[LabelReported]]:
    """Fifty days in order of time, of users who are there all along."""
    random = np.random.default_rng(11)
    minutes = np.sort(random.integers(0, 60 * 24 * 50, N)).tolist()
    transactions = [
        TransactionReceived(
            transaction_id=f"t{n:05d}",
            occurred_at=START + timedelta(minutes=minute),
            amount=int(random.integers(1, 90_000)) / 100,
            user_id=f"u{random.integers(0, USERS)}",
            terminal_id=f"m{random.integers(0, 9)}",
        )
        for n, minute in enumerate(minutes)
    ]
    return transactions, frauds_reported(transactions[::9])


def served_vectors(world: World) -> dict[str, bytes]:
    return {i: verdict.features for i, verdict in world.verdicts().items()}


def run_and_kill(world: World, count: int, **options: object) -> None:
    process = world.stream(batch=20, **options)  # type: ignore[arg-type]
    process.run_until_verdicts(count)
    process.kill()


@pytest.mark.parametrize("grown_to", [3, 4])
@pytest.mark.parametrize("unscored", [0, 60])
@pytest.mark.parametrize("snapshot_interval_s", [0.0, 1e9])
def test_users_who_move_when_the_topic_grows_take_their_history_along(
    tmp_path: Path, grown_to: int, unscored: int, snapshot_interval_s: float
) -> None:
    world = World(tmp_path, 2)
    transactions, labels = traffic()
    world.report(*labels)
    world.send(*transactions[:200])
    first = world.stream(batch=20, snapshot_interval_s=0.0)
    first.run_until_verdicts(200)
    world.send(*transactions[200 : 200 + unscored])
    first.kill()

    world.grow(grown_to)
    world.send(*transactions[200 + unscored :])
    for target in (250, 300, 350):
        run_and_kill(world, target, snapshot_interval_s=snapshot_interval_s)
    world.stream(batch=20).run_until_verdicts(N)

    users = {(t.user_id or "").encode() for t in transactions}
    assert any(partition_of(user, 2) != partition_of(user, grown_to) for user in users)
    assert served_vectors(world) == vectors_of_the_whole_table(transactions, labels)
    assert world.dead() == []


def test_a_topic_that_grows_twice_keeps_its_users_history(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    transactions, labels = traffic()
    world.report(*labels)
    for number, partitions in enumerate((1, 3, 5)):
        world.grow(partitions)
        world.send(*transactions[100 * number : 100 * number + 100])
        run_and_kill(world, 100 * number + 100, snapshot_interval_s=0.0)
    world.send(*transactions[300:])

    world.stream(batch=20).run_until_verdicts(N)

    assert served_vectors(world) == vectors_of_the_whole_table(transactions, labels)


def test_a_copy_is_recognised_in_its_users_new_partition(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    users = [f"u{n}" for n in range(8)]
    world.send(*[transaction(n, user=user) for n, user in enumerate(users)])
    run_and_kill(world, 8, snapshot_interval_s=0.0)

    world.grow(4)
    world.send(*[transaction(n, user=user) for n, user in enumerate(users)], transaction(99))
    world.stream().run_until_verdicts(9)

    assert sorted(world.verdicts()) == [*(f"t{n:05d}" for n in range(8)), "t00099"]


@pytest.mark.parametrize("snapshot_interval_s", [0.0, 1e9])
def test_a_running_process_ends_when_the_topic_grows_and_the_next_goes_on(
    tmp_path: Path, snapshot_interval_s: float
) -> None:
    """At the latest with its next snapshots, at once where it is assigned a new partition."""
    world = World(tmp_path, 2)
    transactions, labels = traffic()
    world.report(*labels)
    world.send(*transactions[:100])
    process = world.stream(batch=20, snapshot_interval_s=0.0)
    process.run_until_verdicts(100)

    world.grow(4)
    if snapshot_interval_s == 1e9:
        world.broker.rebalance("predictor")
    world.send(*[t for t in transactions[100:] if partition_of((t.user_id or "").encode(), 4) < 2][:1])
    with pytest.raises(LogChanged, match="4 partitions, 2 when this process started"):
        process.run_until(lambda: False)

    process.kill()
    sent = {t.transaction_id for t in transactions[:100]}
    world.send(*[t for t in transactions[100:] if t.transaction_id not in {*sent, *world.verdicts()}])
    world.stream(batch=20).run_until_verdicts(N)
    assert set(served_vectors(world)) == {t.transaction_id for t in transactions}


def test_what_a_producer_sends_to_a_users_former_partition_is_dead_lettered_and_scored_nowhere(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    mover = next(f"u{n}" for n in range(99) if partition_of(b"u%d" % n, 2) == 1)
    world.send(transaction(1, user=mover))
    run_and_kill(world, 1, snapshot_interval_s=0.0)
    world.grow(2)
    process = world.stream(snapshot_interval_s=0.0)
    for _ in range(20):
        process.step()

    stray = transaction(2, user=mover, at=START + timedelta(hours=1))
    world.broker.append("transactions", encode(stray), mover.encode(), partition=0)
    world.send(transaction(3, user=mover, at=START + timedelta(hours=2)))
    process.run_until_verdicts(2)
    process.run_until(lambda: bool(world.dead()))
    process.kill()
    world.send(transaction(4, user=mover, at=START + timedelta(hours=3)))
    world.stream().run_until_verdicts(3)

    assert world.dead() == [("wrong_partition", encode(stray))]
    last = unpack_rows([world.verdicts()["t00004"].features], len(LAYOUT.names))[0]
    assert last[LAYOUT.names.index("user_count_1d")] == 3


def test_state_of_a_topic_that_was_made_anew_is_not_used(tmp_path: Path) -> None:
    """Although the new log has become longer than the old one was."""
    world = World(tmp_path, 2)
    transactions, labels = traffic()
    world.report(*labels)
    world.send(*transactions[:100])
    run_and_kill(world, 100, snapshot_interval_s=0.0)
    for topic in ("transactions", "labels", "terminal-activity", "predictions"):
        world.broker.remake(topic)
    elsewhere = [
        msgspec.structs.replace(t, transaction_id=f"n{t.transaction_id}", amount=t.amount + 1) for t in transactions
    ]
    new_labels = [msgspec.structs.replace(x, transaction_id=f"n{x.transaction_id}") for x in labels]

    world.report(*new_labels)
    world.send(*elsewhere)
    run_and_kill(world, 300, snapshot_interval_s=1e9)
    world.stream(batch=20).run_until_verdicts(N)

    assert served_vectors(world) == vectors_of_the_whole_table(elsewhere, new_labels)
    assert len(list((tmp_path / "partitions").glob("*"))) <= 1


def test_a_running_process_ends_when_the_topic_is_made_anew(tmp_path: Path) -> None:
    world = World(tmp_path, 2)
    world.send(transaction(1))
    process = world.stream()
    process.run_until_verdicts(1)

    world.broker.remake("transactions")
    world.broker.evict(process.consumer)

    with pytest.raises(LogChanged, match="another topic"):
        process.run_until(lambda: False)


def test_a_predictor_that_joins_late_serves_what_the_whole_table_says(tmp_path: Path) -> None:
    world = World(tmp_path, 4)
    transactions, labels = traffic()
    world.report(*labels)
    world.send(*transactions[:300])
    early = world.stream("early", batch=15, folder=tmp_path / "early")
    early.run_until_verdicts(300)

    late = world.stream("late", batch=15, folder=tmp_path / "late")
    world.send(*transactions[300:])
    alternate([early, late], world)

    assert late.consumer.assignment()
    assert served_vectors(world) == vectors_of_the_whole_table(transactions, labels)


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_predictor_on_another_machine_starts_from_shared_snapshots(tmp_path: Path, kind: str, unique: str) -> None:
    world = World(tmp_path, 2)
    transactions, labels = traffic()
    world.report(*labels)
    world.send(*transactions[:300])
    url = f"memory://{unique}" if kind == "memory" else (tmp_path / "shared").as_uri()
    storage = SharedStorage(url)
    first = world.stream(folder=tmp_path / "one", shared=storage)
    first.run_until_verdicts(300)
    first.end()
    storage.close()
    replayed: list[object] = []

    again = SharedStorage(url)
    second = world.stream(folder=tmp_path / "two", shared=again)
    second.handler.replay = replayed.extend  # type: ignore[method-assign, assignment]
    world.send(*transactions[300:])
    second.run_until_verdicts(N)
    again.close()

    assert replayed == []
    assert served_vectors(world) == vectors_of_the_whole_table(transactions, labels)


def alternate(replicas: list[Process], world: World) -> None:
    for _ in range(3_000):
        if len(world.predictions()) >= N:
            return
        for replica in replicas:
            replica.step()
    raise AssertionError("not done in time")


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("topic", ["labels", "terminal-activity", "predictions", "feature-panes", "transactions-dlq"])
def test_a_topic_next_to_transactions_may_grow_and_no_feature_changes(
    tmp_path: Path, topic: str, restarted: bool
) -> None:
    world = World(tmp_path, 2)
    transactions, labels = traffic()
    world.send(*transactions[:200])
    process = world.stream(batch=20, snapshot_interval_s=0.0)
    process.run_until_verdicts(200)

    world.broker.grow(topic, 5)
    world.report(*labels)
    if restarted:
        process.kill()
        process = world.stream(batch=20)
    for _ in range(20):
        process.step(pace_s=1.0)
    world.send(*transactions[200:])
    process.run_until_verdicts(N)

    # Labels came late: a verdict before them knew none, as a table without them has it.
    late = vectors_of_the_whole_table(transactions, labels)
    assert {i: v for i, v in served_vectors(world).items() if i >= "t00200"} == {
        i: v for i, v in late.items() if i >= "t00200"
    }
    assert len(world.broker.records("labels")) == len(labels)
    assert topic != "labels" or {r.partition for r in world.broker.records("labels")} > {0, 1}


def test_a_topic_with_fewer_partitions_than_transactions_is_named_with_the_remedy(tmp_path: Path) -> None:
    world = World(tmp_path, 2)
    world.broker.grow("transactions", 3)
    process = world.stream()

    for _ in range(5):
        process.step()

    assert process.health.unmet()["kafka"].endswith("--alter --topic feature-panes --partitions 3")
