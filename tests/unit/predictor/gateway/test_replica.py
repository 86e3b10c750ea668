"""The gateway's replica has the windows that the stream has after the same records, and learns verdicts from the
log."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from centinela.consuming.table_reader import TableReader
from centinela.events import AttachedVerdict, LabelReported, TransactionReceived, TransactionScored, encode
from centinela.features.assemble import Columns
from centinela.features.currency import Rates, RateSeries
from centinela.features.keys import hash_ids
from centinela.features.layout import USER_FEATURES, FeatureLayout, pack_rows
from centinela.features.snapshots.store import SnapshotStore
from centinela.features.spec import Feature
from centinela.kafka.partitioner import partition_of
from centinela.kafka.port import Record, TopicPartition
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeConsumer
from centinela.times import DAY_MS, to_ms, to_ms_array
from centinela.topics import LABELS, PREDICTIONS, TERMINAL_ACTIVITY, TRANSACTIONS
from centinela.web.refusals import RequestRefused
from centinela_predictor.gateway.replica import PositionedReader, StateReplica, VerdictFollower, from_newest
from centinela_predictor.gateway.requests import PredictRequest
from centinela_predictor.gateway.verdict_cache import VerdictCache, require_same
from centinela_predictor.state.admission import SCHEMA_ONLY, AdmissionRules, admit
from centinela_predictor.state.partition_state import PartitionState
from centinela_predictor.state.partition_store import LogChanged, PartitionStores
from centinela_predictor.state.terminal_activity import Block, pack_block

NOW = datetime(2023, 11, 14, 12, tzinfo=UTC)
"""Before the times at which the fake broker stamps records, or they would lie in the future."""
LAYOUT = FeatureLayout(("v1",))
PARTITIONS = 3
NOWHERE = Path("/nonexistent/snapshots")
USERS_AT = slice(LAYOUT.names.index(USER_FEATURES[0]), LAYOUT.names.index(USER_FEATURES[-1]) + 1)


def unplaced(
    broker: FakeBroker,
    cache: VerdictCache | None = None,
    state_dir: Path = NOWHERE,
    layout: FeatureLayout = LAYOUT,
    rules: AdmissionRules = SCHEMA_ONLY,
) -> StateReplica:
    clock = FixedClock(NOW)
    stores = PartitionStores(
        state_dir,
        lambda: broker.identify(TRANSACTIONS.name),
        lambda: FakeConsumer(broker),
        clock,
        dedupe_ids=1_000,
        layout=layout,
        rules=rules,
    )
    return StateReplica(layout, VerdictCache(10_000) if cache is None else cache, clock, stores)


def replica(
    cache: VerdictCache | None = None, layout: FeatureLayout = LAYOUT, rules: AdmissionRules = SCHEMA_ONLY
) -> StateReplica:
    broker = FakeBroker(PARTITIONS)
    made, reader = unplaced(broker, cache, layout=layout, rules=rules), FakeConsumer(broker)
    made.seek_start(reader, TableReader(reader, [TRANSACTIONS.name]), reader.partitions_of(TRANSACTIONS.name))
    return made


def transactions(count: int, seed: int = 5) -> list[TransactionReceived]:
    """Of some users and some without, in order of time with a few late ones."""
    random = np.random.default_rng(seed)
    minutes = np.sort(random.integers(0, 60 * 24 * 40, count)) - np.where(random.random(count) < 0.05, 3_000, 0)
    return [
        TransactionReceived(
            transaction_id=f"tx-{n}",
            occurred_at=NOW - timedelta(days=40) + timedelta(minutes=int(minutes[n])),
            amount=round(float(random.gamma(2, 40)), 2),
            user_id=None if n % 11 == 0 else f"u-{random.integers(12)}",
            terminal_id=f"t-{random.integers(5)}",
            attributes={"v1": float(n)},
        )
        for n in range(count)
    ]


def records(events: list[TransactionReceived]) -> list[Record]:
    """As the broker would hand them out."""
    ends = dict.fromkeys(range(PARTITIONS), 0)
    found = []
    for event in events:
        key = (event.user_id or event.transaction_id).encode()
        number = partition_of(key, PARTITIONS)
        found.append(Record(TRANSACTIONS.name, number, ends[number], key, encode(event)))
        ends[number] += 1
    return found


def test_the_next_transaction_gets_the_windows_that_the_stream_gives_it() -> None:
    """Checked against the stream's own state, one transaction at a time."""
    events = transactions(400)
    gateway_state, stream = replica(), [PartitionState(1_000) for _ in range(PARTITIONS)]
    log = records(events)
    for at, (event, record) in enumerate(zip(events, log, strict=True)):
        read = gateway_state.features([event])
        _, expected = stream[record.partition].apply(Columns.of([event]))
        np.testing.assert_array_equal(read[:, USERS_AT], expected, err_msg=f"transaction {at}")
        gateway_state.apply_transactions([record])


def test_refunds_and_other_currencies_are_what_they_are_to_the_stream() -> None:
    rates = Rates("EUR", {"JPY": RateSeries(np.array([0, to_ms(NOW) - 20 * DAY_MS]), np.array([0.0075, 0.5]))})
    events = [
        msgspec.structs.replace(event, currency="JPY" if n % 3 else "EUR", kind="refund" if n % 7 == 0 else "purchase")
        for n, event in enumerate(transactions(150))
    ]
    gateway_state, stream = (
        replica(rules=AdmissionRules(rates=rates)),
        [PartitionState(1_000) for _ in range(PARTITIONS)],
    )
    for event, record in zip(events, records(events), strict=True):
        read = gateway_state.features([event])
        columns = Columns.of([event], LAYOUT, rates)
        _, expected = stream[record.partition].apply(columns)
        np.testing.assert_array_equal(read[:, USERS_AT], expected)
        assert read[0, 0] == columns.amounts[0]
        gateway_state.apply_transactions([record])


def test_extra_features_are_those_that_the_stream_gives() -> None:
    layout = FeatureLayout(
        ("v1",),
        (
            Feature("user_terminals_3d", "user", "distinct", 3 * DAY_MS, "terminal_id"),
            Feature("user_v1_mean_5d", "user", "mean", 5 * DAY_MS, "v1"),
        ),
    )
    events = transactions(150)
    gateway_state, stream = replica(layout=layout), [PartitionState(1_000, layout) for _ in range(PARTITIONS)]
    for event, record in zip(events, records(events), strict=True):
        read = gateway_state.features([event])
        _, expected = stream[record.partition].apply(Columns.of([event], layout))
        np.testing.assert_array_equal(
            read[:, [layout.names.index(feature.name) for feature in layout.extra]], expected[:, -2:]
        )
        gateway_state.apply_transactions([record])


def test_a_batch_reads_each_row_from_its_own_partition() -> None:
    events = transactions(300)
    gateway_state = replica()
    gateway_state.apply_transactions(records(events[:200]))
    together = gateway_state.features(events[200:])
    np.testing.assert_array_equal(together, np.concatenate([gateway_state.features([event]) for event in events[200:]]))
    assert len({partition_of((e.user_id or e.transaction_id).encode(), PARTITIONS) for e in events[200:]}) == PARTITIONS


def test_reading_features_changes_nothing() -> None:
    events = transactions(100)
    gateway_state = replica()
    gateway_state.apply_transactions(records(events[:99]))
    first = gateway_state.features(events[99:])
    for _ in range(3):
        np.testing.assert_array_equal(gateway_state.features(events[99:]), first)


def test_copies_and_refused_records_leave_no_trace() -> None:
    events = transactions(60)
    once, disturbed = replica(), replica()
    once.apply_transactions(records(events[:59]))
    log = records(events[:59])
    bad = [
        log[0]._replace(value=b"{"),
        log[0]._replace(value=None),
        log[0]._replace(
            value=encode(
                msgspec.structs.replace(events[0], transaction_id="future", occurred_at=NOW + timedelta(days=9))
            )
        ),
    ]
    disturbed.apply_transactions([*log, *bad, *log])
    np.testing.assert_array_equal(disturbed.features(events[59:]), once.features(events[59:]))


def test_what_is_in_the_log_is_seen() -> None:
    events = transactions(50)
    gateway_state = replica()
    gateway_state.apply_transactions(records(events[:30]))
    assert gateway_state.seen(events) == [True] * 30 + [False] * 20
    assert gateway_state.seen([]) == []


def test_terminal_windows_come_from_activity_and_labels() -> None:
    gateway_state = replica()
    occurred = [NOW - timedelta(days=days) for days in (10, 9, 7.5)]
    ids = hash_ids(["a", "b", "c"])
    block = Block(0, 1, 1, hash_ids(["t"] * 3), to_ms_array(occurred), ids)
    label = LabelReported(
        transaction_id="b", is_fraud=True, occurred_at=occurred[1], reported_at=NOW - timedelta(days=2)
    )
    gateway_state.apply_terminals(
        [
            Record(TERMINAL_ACTIVITY.name, 0, 0, b"0", pack_block(block)),
            Record(TERMINAL_ACTIVITY.name, 0, 1, b"0", b"nonsense"),
            Record(LABELS.name, 0, 0, b"b", encode(label)),
        ]
    )
    row = gateway_state.features(
        [TransactionReceived(transaction_id="d", occurred_at=NOW, amount=1.0, terminal_id="t")]
    )[0]
    named = dict(zip(LAYOUT.names, row.tolist(), strict=True))
    assert (named["terminal_count_1d"], named["terminal_count_7d"], named["terminal_risk_7d"]) == (1.0, 3.0, 1 / 3)
    assert np.isnan(named["user_count_1d"])


def test_a_gateways_verdict_in_the_log_is_remembered() -> None:
    """So a second gateway, and this one after a restart, answers as the first did."""
    cache = VerdictCache(100)
    gateway_state = replica(cache)
    verdict = AttachedVerdict(
        origin="gateway",
        decision="decline",
        variant="champion",
        score=0.9,
        threshold=0.8,
        model_version="4",
        feature_set=LAYOUT.id,
        features=pack_rows(np.zeros((1, len(LAYOUT.names))))[0],
        scored_at=NOW,
    )
    event = TransactionReceived(
        transaction_id="g", occurred_at=NOW, amount=3.0, attributes={"v1": 1.0}, verdict=verdict
    )
    history = TransactionReceived(
        transaction_id="h",
        occurred_at=NOW,
        amount=3.0,
        verdict=AttachedVerdict(origin="history", decision="approve", variant="none"),
    )
    gateway_state.apply_transactions(records([event, history]))
    entry = cache.get("g")
    assert entry is not None
    assert (entry.verdict.decision, entry.verdict.is_fraud, entry.verdict.model_version, entry.verdict.attributes) == (
        "decline",
        True,
        "4",
        {"v1": 1.0},
    )
    assert cache.get("h") is None


def test_predictions_are_remembered_and_nonsense_is_passed_over() -> None:
    cache = VerdictCache(100)
    scored = TransactionScored(
        transaction_id="p",
        occurred_at=NOW,
        amount=2.0,
        decision="review",
        variant="challenger",
        origin="stream",
        feature_set=LAYOUT.id,
        features=b"",
        scored_at=NOW,
        score=0.5,
        threshold=0.8,
        model_version="5",
    )
    VerdictFollower(cache, LAYOUT).apply(
        [
            Record(PREDICTIONS.name, 0, n, b"p", value)
            for n, value in enumerate([b"{", None, b"[" * 3_000, b'{"a":' * 3_000, encode(scored), b"[]"])
        ]
    )
    entry = cache.get("p")
    assert entry is not None
    assert (entry.verdict.decision, entry.verdict.variant, entry.outgoing) == ("review", "challenger", None)


def test_another_payload_is_distinguished_from_the_first_where_only_predictions_are_known() -> None:
    """As after a restart, with the stream's snapshot behind the transaction."""
    cache, first = (
        VerdictCache(100),
        TransactionReceived(transaction_id="p", occurred_at=NOW, amount=2.0, attributes={"v1": 1.5}),
    )
    served = replica().features([first])
    scored = TransactionScored(
        transaction_id="p",
        occurred_at=NOW,
        amount=2.0,
        decision="review",
        variant="champion",
        origin="stream",
        feature_set=LAYOUT.id,
        features=pack_rows(served)[0],
        scored_at=NOW,
        score=0.5,
        threshold=0.8,
        model_version="5",
    )
    VerdictFollower(cache, LAYOUT).apply([Record(PREDICTIONS.name, 0, 0, b"p", encode(scored))])
    entry = cache.get("p")
    assert entry is not None
    require_same(entry.verdict, PredictRequest(transaction_id="p", amount=2.0, attributes={"v1": 1.5}), LAYOUT)
    require_same(
        entry.verdict, PredictRequest(transaction_id="p", amount=2.0, attributes={"v1": 1.5}, occurred_at=NOW), LAYOUT
    )
    hour_later = NOW + timedelta(hours=1)
    others: tuple[dict[str, Any], ...] = (
        {"amount": 3.0},
        {"attributes": {"v1": 1.6}},
        {"attributes": {}},
        {"occurred_at": hour_later},
        {"currency": "USD"},
    )
    for other in others:
        fields: dict[str, Any] = {"transaction_id": "p", "amount": 2.0, "attributes": {"v1": 1.5}}
        request = PredictRequest(**(fields | other))
        with pytest.raises(RequestRefused) as refused:
            require_same(entry.verdict, request, LAYOUT)
        assert (refused.value.status, refused.value.field) == (409, next(iter(other)))


def test_followers_and_the_deciding_thread_share_the_state() -> None:
    """While records are applied, every row read must be one of a state between whole batches."""
    base = NOW - timedelta(hours=1)
    batches = [
        [
            TransactionReceived(
                transaction_id=f"{n}-{k}", occurred_at=base + timedelta(seconds=10 * n + k), amount=1.0, user_id="u"
            )
            for k in range(10)
        ]
        for n in range(100)
    ]
    gateway_state = replica()
    probe = TransactionReceived(transaction_id="probe", occurred_at=NOW, amount=1.0, user_id="u")
    counts: list[float] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            counts.append(float(gateway_state.features([probe])[0, LAYOUT.names.index("user_count_1d")]))

    reader = threading.Thread(target=read)
    reader.start()
    for batch in batches:
        gateway_state.apply_transactions(records(batch))
    done.set()
    reader.join(10)
    assert counts
    assert all(count % 10 == 1 for count in counts)
    assert counts == sorted(counts)
    assert gateway_state.features([probe])[0, LAYOUT.names.index("user_count_1d")] == 1_001.0


def test_the_newest_verdicts_are_read_and_the_rest_is_not() -> None:
    broker = FakeBroker(2)
    for n in range(40):
        broker.append(PREDICTIONS.name, b"%d" % n, partition=n % 2)
    reader = PositionedReader(FakeConsumer(broker), PREDICTIONS.name, from_newest(10), FixedClock(NOW))
    read = reader.poll(0.0) + reader.poll(0.0)
    assert sorted(int(record.value or b"-1") for record in read) == list(range(30, 40))
    assert reader.at_end()
    broker.append(PREDICTIONS.name, b"40", partition=0)
    assert [record.value for record in reader.poll(0.0)] == [b"40"]
    assert reader.partitions == {TopicPartition(PREDICTIONS.name, n) for n in range(2)}


@pytest.mark.parametrize("newest_is_damaged", [False, True])
def test_a_start_from_the_streams_snapshots_ends_where_a_start_from_the_beginning_does(
    tmp_path: Path, newest_is_damaged: bool
) -> None:
    broker = FakeBroker(PARTITIONS)
    log = records(transactions(200))
    for record in log:
        broker.append(record.topic, record.value, record.key, partition=record.partition)
    life = broker.identify(TRANSACTIONS.name)
    store = SnapshotStore(tmp_path / "partitions" / f"{life.id}-{life.partitions}" / "1")
    of_one = [record for record in log if record.partition == 1]
    for snapshot_at in (20, 40):
        stream = PartitionState(1_000)
        stream.apply(admit(of_one[:snapshot_at], NOW).columns)
        store.save(snapshot_at, stream.to_bytes())
    store.save(len(of_one) + 5, b"of a longer log, not looked at")
    if newest_is_damaged:
        store.save(40, b"torn")

    read: dict[Path, list[Record]] = {}
    rows = []
    for state_dir in (NOWHERE, tmp_path):
        gateway_state = unplaced(broker, state_dir=state_dir)
        reader = PositionedReader(FakeConsumer(broker), TRANSACTIONS.name, gateway_state.seek_start, FixedClock(NOW))
        read[state_dir] = reader.poll(0.0)
        gateway_state.apply_transactions(read[state_dir])
        rows.append(
            gateway_state.features(
                [
                    TransactionReceived(transaction_id=f"q-{n}", occurred_at=NOW, amount=1.0, user_id=f"u-{n}")
                    for n in range(12)
                ]
            )
        )

    assert (rows[0][:, LAYOUT.names.index("user_count_30d")] > 1).all()
    assert len(read[NOWHERE]) == 200
    assert len(read[tmp_path]) == 200 - (20 if newest_is_damaged else 40)
    np.testing.assert_array_equal(rows[1], rows[0])


@pytest.mark.parametrize("snapshots_of_the_grown_topic", [False, True])
def test_a_user_who_moved_when_the_topic_grew_has_all_of_its_windows(
    tmp_path: Path, snapshots_of_the_grown_topic: bool
) -> None:
    broker = FakeBroker(1)
    events = transactions(200)
    for event in events[:150]:
        broker.append(TRANSACTIONS.name, encode(event), (event.user_id or event.transaction_id).encode())
    once = unplaced(broker, state_dir=tmp_path)
    PositionedReader(FakeConsumer(broker), TRANSACTIONS.name, once.seek_start, FixedClock(NOW)).poll(0.0)
    once._stores.save(0, PartitionState(1_000, LAYOUT), 0)
    broker.grow(TRANSACTIONS.name, PARTITIONS)
    for event in events[150:]:
        broker.append(TRANSACTIONS.name, encode(event), (event.user_id or event.transaction_id).encode())
    if snapshots_of_the_grown_topic:
        stream = unplaced(broker, state_dir=tmp_path)._stores
        stream.open()
        for number, state in enumerate(stream.repartition({0: 150, 1: 0, 2: 0})):
            stream.save(number, state, [150, 0, 0][number])

    gateway_state = unplaced(broker, state_dir=tmp_path)
    reader = PositionedReader(FakeConsumer(broker), TRANSACTIONS.name, gateway_state.seek_start, FixedClock(NOW))
    while read := reader.poll(0.0):
        gateway_state.apply_transactions(read)

    whole = replica()
    whole.apply_transactions(records(events))
    probes = [
        TransactionReceived(transaction_id=f"q-{n}", occurred_at=NOW, amount=1.0, user_id=f"u-{n}") for n in range(12)
    ]
    np.testing.assert_array_equal(gateway_state.features(probes)[:, USERS_AT], whole.features(probes)[:, USERS_AT])
    assert gateway_state.seen(events) == [True] * 200


def test_verdicts_in_a_partition_that_was_added_are_followed() -> None:
    broker, clock = FakeBroker(2), FixedClock(NOW)
    reader = PositionedReader(FakeConsumer(broker), PREDICTIONS.name, from_newest(10), clock)
    broker.append(PREDICTIONS.name, b"0", partition=1)
    reader.poll(0.0)
    broker.grow(PREDICTIONS.name, 3)
    broker.append(PREDICTIONS.name, b"1", partition=2)

    clock.set(NOW + timedelta(seconds=10))

    assert [record.value for record in reader.poll(0.0)] == [b"1"]


def test_transactions_that_grow_while_they_are_followed_end_the_follower() -> None:
    broker, clock = FakeBroker(2), FixedClock(NOW)
    gateway_state = unplaced(broker)
    reader = PositionedReader(FakeConsumer(broker), TRANSACTIONS.name, gateway_state.seek_start, clock)
    reader.poll(0.0)
    broker.grow(TRANSACTIONS.name, 4)

    clock.set(NOW + timedelta(seconds=10))
    with pytest.raises(LogChanged, match="4 partitions, not 2"):
        reader.poll(0.0)
