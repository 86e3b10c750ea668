"""A group whose offsets are gone: the stream goes on where its own records say that it was, or says what to do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from centinela.errors import TransactionAborted
from centinela.events import LabelReported, TransactionReceived, encode
from centinela.kafka.port import TopicPartition
from centinela.topics import TERMINAL_ACTIVITY, TRANSACTIONS
from centinela_predictor.state.written_position import PositionUnknown
from centinela_predictor.stream.deferral import StreamLimits
from tests.support.predictor_world import (
    START,
    Process,
    World,
    frauds_reported,
    ids,
    transaction,
    vectors_of_the_whole_table,
)
from tests.support.served_models import served

GROUP = "predictor"
P0 = TopicPartition(TRANSACTIONS.name, 0)


def traffic(count: int = 300) -> tuple[list[TransactionReceived], list[LabelReported]]:
    """Forty days in order of time."""
    random = np.random.default_rng(5)
    minutes = np.sort(random.integers(0, 60 * 24 * 40, count)).tolist()
    transactions = [
        transaction(
            n,
            user=f"u{random.integers(0, 30)}",
            terminal=f"m{random.integers(0, 9)}",
            at=START + timedelta(minutes=minute),
            amount=int(random.integers(1, 90_000)) / 100,
        )
        for n, minute in enumerate(minutes)
    ]
    return transactions, frauds_reported(transactions[::9])


def replays(process: Process) -> list[int]:
    """How many records each replay has from now on."""
    counts: list[int] = []
    replay = process.handler.replay

    def counted(records: list[object]) -> None:
        counts.append(len(records))
        replay(records)  # type: ignore[arg-type]

    process.handler.replay = counted  # type: ignore[method-assign, assignment]
    return counts


def judged(world: World) -> dict[str, bytes]:
    return {i: verdict.features for i, verdict in world.verdicts().items()}


@pytest.mark.parametrize("snapshot_interval_s", [0.0, 1e9])
@pytest.mark.parametrize("ended", [False, True])
def test_a_stream_whose_group_was_deleted_goes_on_and_judges_nothing_twice(
    tmp_path: Path, snapshot_interval_s: float, ended: bool
) -> None:
    world = World(tmp_path, 2)
    transactions, labels = traffic()
    world.report(*labels)
    world.send(*transactions[:200])
    process = world.stream(batch=20, snapshot_interval_s=snapshot_interval_s)
    process.run_until_verdicts(200)
    world.send(*transactions[200:250], *transactions[150:160])

    if ended:
        process.end()
        process = world.stream(batch=20)
    else:
        world.broker.evict(process.consumer)
    world.broker.forget(GROUP)
    replayed = replays(process)
    world.send(*transactions[250:])
    process.run_until_verdicts(300)

    assert sorted(world.verdicts()) == ids(transactions)
    assert judged(world) == vectors_of_the_whole_table(transactions, labels)
    assert sum(replayed) == (200 if snapshot_interval_s == 1e9 and not ended else 0)


def test_what_was_judged_after_the_last_snapshot_is_replayed_and_not_judged_again(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    transactions, labels = traffic(60)
    world.report(*labels)
    world.send(*transactions[:20])
    process = world.stream(batch=5, snapshot_interval_s=0.0)
    process.run_until_verdicts(20)
    process.kill()
    world.send(*transactions[20:50])
    process = world.stream(batch=5, snapshot_interval_s=1e9)
    process.run_until_verdicts(50)
    process.kill()
    world.broker.forget(GROUP)

    process = world.stream(batch=5)
    replayed = replays(process)
    world.send(*transactions[50:])
    process.run_until_verdicts(60)

    assert 30 <= sum(replayed) <= 35
    assert judged(world) == vectors_of_the_whole_table(transactions, labels)


def test_dead_letters_and_deferred_transactions_keep_their_place(tmp_path: Path) -> None:
    world = World(tmp_path, 1, model=None)
    world.broker.append(TRANSACTIONS.name, b"{", b"u1")
    world.send(transaction(1), transaction(2))
    process = world.stream()
    process.run_until(lambda: len(world.dead()) == 1 and not world.predictions())
    process.kill()
    world.broker.forget(GROUP)

    world.slot.swap("champion", served("1"))
    world.stream().run_until_verdicts(2)

    assert sorted(world.verdicts()) == ["t00001", "t00002"]
    assert [reason for reason, _ in world.dead()] == ["malformed_json"]


def test_an_idle_partition_is_not_read_again(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    world.send(transaction(1))
    process = world.stream(limits=StreamLimits(idle_after_s=0.05))
    process.run_until_verdicts(1)
    for _ in range(30):
        process.step()
    process.kill()
    world.broker.forget(GROUP)

    process = world.stream()
    for _ in range(30):
        process.step()

    assert len(world.predictions()) == 1


def test_a_topic_that_has_grown_and_a_group_without_offsets_judge_nothing_twice(tmp_path: Path) -> None:
    world = World(tmp_path, 2)
    transactions, labels = traffic()
    world.report(*labels)
    world.send(*transactions[:200])
    process = world.stream(batch=20, snapshot_interval_s=0.0)
    process.run_until_verdicts(200)
    process.kill()
    world.broker.forget(GROUP)
    world.grow(4)
    world.send(*transactions[200:])

    world.stream(batch=20).run_until_verdicts(300)

    assert judged(world) == vectors_of_the_whole_table(transactions, labels)


def test_a_topic_made_again_is_read_from_its_beginning_however_long_it_is(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    transactions, _ = traffic(60)
    world.send(*transactions[:20])
    process = world.stream(snapshot_interval_s=0.0)
    process.run_until_verdicts(20)
    process.kill()

    world.broker.remake(TRANSACTIONS.name)
    world.send(*transactions[20:])
    world.stream().run_until_verdicts(60)

    assert sorted(world.verdicts()) == ids(transactions)


def test_offsets_past_the_end_of_the_log_do_not_begin_it_again(tmp_path: Path) -> None:
    """A broker that lost its disk has less of the log than the group has committed."""
    world = World(tmp_path, 1)
    transactions, _ = traffic(60)
    world.send(*transactions[:40])
    process = world.stream(batch=10, snapshot_interval_s=0.0)
    process.run_until_verdicts(40)
    process.kill()
    world.broker.truncate(P0, 30)

    process = world.stream(batch=10)
    for _ in range(5):
        process.step()
    world.send(*transactions[40:])
    process.run_until_verdicts(60)

    assert sorted(world.verdicts()) == ids(transactions)


def lost_blocks(world: World) -> None:
    world.broker.remake(TERMINAL_ACTIVITY.name)


def expired_blocks(world: World) -> None:
    blocks = TopicPartition(TERMINAL_ACTIVITY.name, 0)
    world.broker.expire(blocks, world.broker.stable_end(blocks))


def blocks_of_an_earlier_version(world: World) -> None:
    blocks = world.broker.records(TERMINAL_ACTIVITY.name)
    world.broker.append(TERMINAL_ACTIVITY.name, blocks[-1].value, blocks[-1].key, partition=0)


@pytest.mark.parametrize("lose", [lost_blocks, expired_blocks, blocks_of_an_earlier_version])
@pytest.mark.parametrize("snapshot_interval_s", [0.0, 1e9])
def test_where_nothing_says_what_was_judged_the_stream_refuses_to_start_until_an_operator_decides(
    tmp_path: Path, lose: Callable[[World], None], snapshot_interval_s: float
) -> None:
    world = World(tmp_path, 1)
    world.send(transaction(1), transaction(2))
    process = world.stream(snapshot_interval_s=snapshot_interval_s)
    process.run_until_verdicts(2)
    process.kill()
    world.broker.forget(GROUP)
    lose(world)
    world.send(transaction(3))

    with pytest.raises(PositionUnknown, match=r"--topic transactions:0 --reset-offsets --to-offset N --execute"):
        world.stream().run_until(lambda: False)
    refused = len(world.predictions())
    world.broker.group(GROUP).members.clear()
    world.broker.group(GROUP).committed[P0] = 2
    world.stream().run_until_verdicts(3)

    assert refused == 2
    assert sorted(world.verdicts()) == ["t00001", "t00002", "t00003"]


def test_where_everything_has_expired_the_stream_begins_with_what_comes(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    world.send(transaction(1))
    process = world.stream()
    process.run_until_verdicts(1)
    process.kill()
    world.broker.forget(GROUP)
    expired_blocks(world)
    world.broker.expire(P0, world.broker.stable_end(P0))

    process = world.stream()
    for _ in range(10):
        process.step()
    world.send(msgspec.structs.replace(transaction(2), amount=7.0))
    process.run_until_verdicts(2)

    assert sorted(world.verdicts()) == ["t00001", "t00002"]


def test_a_stream_that_was_never_there_reads_everything(tmp_path: Path) -> None:
    world = World(tmp_path, 2)
    for n in range(10):
        world.broker.append(TRANSACTIONS.name, encode(transaction(n)), b"u1", partition=0)

    world.stream().run_until_verdicts(10)

    assert len(world.verdicts()) == 10


def test_a_first_batch_that_was_aborted_is_not_taken_for_a_lost_position(tmp_path: Path) -> None:
    world = World(tmp_path, 2)
    world.send(*[transaction(n, user=f"u{n}") for n in range(20)])
    process = world.stream(batch=5)
    process.producer.fail_next_commit(TransactionAborted("the group moved on"))

    process.run_until_verdicts(20)

    assert process.producer.aborts == 1
    assert len(world.verdicts()) == 20
