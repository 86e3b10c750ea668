"""Transactions that are in another partition than their user's."""

from __future__ import annotations

import zlib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from centinela.events import LabelReported, TransactionReceived, encode
from centinela.features.layout import unpack_rows
from centinela.kafka.partitioner import partition_of, partitions_of
from centinela_predictor.stream.deferral import StreamLimits
from tests.support.predictor_world import LAYOUT, START, Process, World, transaction, vectors_of_the_whole_table
from tests.support.served_models import served

PARTITIONS = 4
EACH = 4
COUNT_7D = LAYOUT.names.index("user_count_7d")


@given(st.lists(st.binary(max_size=40), max_size=60), st.integers(1, 50))
def test_many_keys_have_the_partitions_of_each(keys: list[bytes], partitions: int) -> None:
    assert partitions_of(keys, partitions).tolist() == [partition_of(key, partitions) for key in keys]


def counted(cause: str) -> float:
    return REGISTRY.get_sample_value("centinela_stream_misrouted_total", {"cause": cause}) or 0.0


def traffic() -> list[TransactionReceived]:
    """Eight users with four transactions each, a minute apart."""
    return [
        TransactionReceived(
            transaction_id=f"u{user}-{n}",
            occurred_at=START + timedelta(minutes=8 * n + user),
            amount=1.0,
            user_id=f"u{user}",
        )
        for n in range(EACH)
        for user in range(8)
    ]


def send(world: World, transactions: list[TransactionReceived], producer: str) -> int:
    """As producers do that set a key but no partitioner, another key, or none; how many come to a wrong partition."""
    wrong = 0
    for n, one in enumerate(transactions):
        user = (one.user_id or "").encode()
        key, partition = {
            "crc32": (user, zlib.crc32(user) % PARTITIONS),
            "another key": (one.transaction_id.encode(), partition_of(one.transaction_id.encode(), PARTITIONS)),
            "no key": (None, n % PARTITIONS),
            "murmur2": (user, partition_of(user, PARTITIONS)),
        }[producer]
        wrong += partition != partition_of(user, PARTITIONS)
        world.broker.append("transactions", encode(one), key, partition=partition)
    return wrong


def run(world: World, **options: object) -> Process:
    process = world.stream(batch=7, limits=StreamLimits(idle_after_s=0.0), **options)  # type: ignore[arg-type]
    process.run_until(lambda: len(world.predictions()) + len(world.dead()) == 8 * EACH)
    return process


@pytest.mark.parametrize(
    ("producer", "cause", "advice"),
    [
        ("crc32", "partitioner", "partitioner=murmur2_random"),
        ("another key", "key", "use the user_id as key"),
        ("no key", "no_key", "has no key: use the user_id as key"),
    ],
)
def test_a_transaction_in_another_partition_than_its_users_is_counted_and_logged(
    tmp_path: Path, producer: str, cause: str, advice: str
) -> None:
    world, before = World(tmp_path, PARTITIONS), counted(cause)
    wrong = send(world, traffic(), producer)

    with capture_logs() as logs:
        run(world)

    told = [entry for entry in logs if entry["event"] == "transactions.misrouted"]
    assert wrong > 8
    assert counted(cause) - before == wrong
    assert (len(told), set(told[0]["causes"])) == (1, {cause})  # the others within the minute are only counted
    assert advice in told[0]["detail"]
    assert world.dead() == []


def test_by_setting_it_is_refused_and_what_remains_has_whole_windows(tmp_path: Path) -> None:
    world = World(tmp_path, PARTITIONS)
    wrong = send(world, traffic(), "crc32")

    run(world, on_misrouted="refuse").kill()

    assert [reason for reason, _ in world.dead()] == ["wrong_partition"] * wrong
    counts = {i: unpack_rows([v.features or b""], len(LAYOUT.names))[0, COUNT_7D] for i, v in world.verdicts().items()}
    assert len(counts) == 8 * EACH - wrong
    assert all(count == int(i.split("-")[1]) + 1 for i, count in counts.items())

    again = world.stream(on_misrouted="refuse")
    for _ in range(40):
        again.step()
    assert len(world.dead()) == wrong


def test_keys_by_user_and_murmur2_are_not_counted(tmp_path: Path) -> None:
    world = World(tmp_path, PARTITIONS)
    before = [counted(cause) for cause in ("partitioner", "key", "no_key")]

    assert send(world, traffic(), "murmur2") == 0
    run(world, on_misrouted="refuse")

    assert world.dead() == []
    assert [counted(cause) for cause in ("partitioner", "key", "no_key")] == before


def test_one_that_is_deferred_or_replayed_is_counted_once(tmp_path: Path) -> None:
    world, before = World(tmp_path, PARTITIONS, model=None), counted("partitioner")
    wrong = send(world, traffic(), "crc32")
    waiting = world.stream(batch=7)
    for _ in range(40):
        waiting.step()
    world.slot.swap("champion", served("1"))
    waiting.run_until(lambda: len(world.predictions()) == 8 * EACH)
    waiting.kill()
    again = world.stream()
    for _ in range(20):
        again.step()

    assert counted("partitioner") - before == wrong


def test_records_with_another_key_are_scored_after_the_topic_has_grown_as_before(tmp_path: Path) -> None:
    world = World(tmp_path, 2)
    early, late = traffic()[:16], traffic()[16:]
    for part, partitions in ((early, 2), (late, 4)):
        if partitions == 4:
            world.grow(partitions)
        for one in part:
            key = one.transaction_id.encode()
            world.broker.append("transactions", encode(one), key, partition=partition_of(key, partitions))
        process = world.stream(batch=7, snapshot_interval_s=0.0)
        process.run_until_verdicts(16 if part is early else 32)
        process.kill()

    assert world.dead() == []


def test_the_partition_of_a_label_does_not_matter(tmp_path: Path) -> None:
    world = World(tmp_path, PARTITIONS)
    transactions = [transaction(n, user=f"u{n % 3}", terminal="m1", at=START + timedelta(days=n)) for n in range(25)]
    labels = [
        LabelReported(
            transaction_id=t.transaction_id,
            is_fraud=True,
            occurred_at=t.occurred_at,
            reported_at=t.occurred_at + timedelta(days=2),
            user_id=t.user_id,
        )
        for t in transactions[::3]
    ]
    for n, label in enumerate(labels):
        world.broker.append("labels", encode(label), None, partition=n % PARTITIONS)
    world.send(*transactions)
    world.stream(batch=5).run_until_verdicts(len(transactions))

    expected = vectors_of_the_whole_table(transactions, labels)
    assert {i: verdict.features for i, verdict in world.verdicts().items()} == expected
