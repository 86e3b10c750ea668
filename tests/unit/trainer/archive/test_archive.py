"""The archive counts every event once, whatever is killed and wherever batches begin after a replay."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from centinela.consuming.handler import Outcome
from centinela.consuming.loop import SinkLoop
from centinela.consuming.options import LoopOptions
from centinela.errors import DependencyUnavailable
from centinela.events import LabelReported, TransactionScored, encode
from centinela.features.layout import FeatureLayout, pack_rows
from centinela.kafka.port import Outgoing, Record, TopicPartition
from centinela.liveness.health import Health
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeProducer, FakeTransactionalProducer
from centinela_trainer.archive.reader import ArchiveReader
from centinela_trainer.archive.store import LABELS, PREDICTIONS, ArchiveStore
from centinela_trainer.archive.writer import Archive

LAYOUT = FeatureLayout(("v1", "v2"))
START = datetime(2026, 3, 1, tzinfo=UTC)
STREAMS = {PREDICTIONS: PREDICTIONS, LABELS: LABELS}


def verdict(number: int, layout: FeatureLayout = LAYOUT, **changes: object) -> TransactionScored:
    row = np.arange(len(layout.names), dtype=float) + number
    row[5] = np.nan
    facts: dict[str, object] = {
        "transaction_id": f"t{number:05d}",
        "occurred_at": START + timedelta(hours=number),
        "amount": float(number),
        "decision": "approve",
        "variant": "champion",
        "origin": "stream",
        "feature_set": layout.id,
        "features": pack_rows(row[None, :])[0],
        "scored_at": START,
        "user_id": f"u{number % 7}",
        "score": 0.25,
    }
    return TransactionScored(**(facts | changes))  # type: ignore[arg-type]


def label(number: int, days: float = 5) -> LabelReported:
    occurred = START + timedelta(hours=number)
    return LabelReported(
        transaction_id=f"t{number:05d}",
        is_fraud=True,
        occurred_at=occurred,
        reported_at=occurred + timedelta(days=days),
    )


class Unhurried(threading.Event):
    """A stop event on which nobody waits: pauses between attempts take no time."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


class Running:
    """An archive on a fake broker."""

    def __init__(
        self, broker: FakeBroker, root: Path, *, rows: int = 10, batch: int = 7, archive: type[Archive] = Archive
    ) -> None:
        self.clock = FixedClock(START + timedelta(days=365))
        self.archive = archive(
            ArchiveStore(root), STREAMS, self.clock, flush_rows=rows, flush_s=5, identify=broker.identify
        )
        self.health = Health()
        self.stop = Unhurried()
        self.loop = SinkLoop(
            FakeConsumer(broker, "archive"),
            FakeProducer(broker),
            self.archive,
            topics=[PREDICTIONS, LABELS],
            health=self.health,
            stop=self.stop,
            options=LoopOptions(batch=batch, idle_s=0, clock=self.clock),
        )

    def drain(self, broker: FakeBroker) -> None:
        """Run until all there is was delivered and committed."""
        quiet = 0
        for _ in range(300):
            quiet = 0 if self.loop.run_once() else quiet + 1
            if quiet > 3 and self._behind(broker) == 0:
                return
        raise AssertionError(f"{self._behind(broker)} records left")

    @staticmethod
    def _behind(broker: FakeBroker) -> int:
        partitions = broker.partitions(PREDICTIONS) | broker.partitions(LABELS)
        return sum(broker.stable_end(p) - broker.committed("archive").get(p, 0) for p in partitions)

    def kill(self) -> None:
        """Leave the group without a last flush."""
        self.loop.close()


def rows_of(root: Path, stream: str = PREDICTIONS) -> list[tuple[int, int]]:
    """(partition, offset) of every row on the disk, nothing deduplicated."""
    return sorted(
        (row["partition"], row["offset"])
        for path in ArchiveStore(root).files(stream)
        for row in pq.read_table(path, columns=["partition", "offset"], partitioning=None).to_pylist()
    )


def logged(broker: FakeBroker, topic: str = PREDICTIONS) -> list[tuple[int, int]]:
    return sorted((record.partition, record.offset) for record in broker.records(topic))


def fill(broker: FakeBroker, numbers: Sequence[int]) -> None:
    for number in numbers:
        event = verdict(number)
        broker.append(PREDICTIONS, encode(event), (event.user_id or "").encode())


def test_verdicts_stand_by_event_day_with_their_vector_in_named_columns(tmp_path: Path) -> None:
    broker = FakeBroker()
    fill(broker, range(0, 48, 6))
    running = Running(broker, tmp_path)
    running.drain(broker)
    running.archive.flush()

    assert [path.parent.name for path in ArchiveStore(tmp_path).files(PREDICTIONS)] == [
        "day=2026-03-01",
        "day=2026-03-02",
    ]
    table = ArchiveReader(tmp_path).predictions(LAYOUT.names, START, START + timedelta(days=9)).sort_by("occurred_us")
    sent = np.array([np.frombuffer(verdict(number).features) for number in range(0, 48, 6)])
    got = np.column_stack([table[name].to_numpy() for name in LAYOUT.names])
    np.testing.assert_array_equal(got, sent)
    assert table["transaction_id"].to_pylist() == [f"t{number:05d}" for number in range(0, 48, 6)]


def test_labels_stand_by_event_day_and_are_read_as_of_a_time(tmp_path: Path) -> None:
    broker = FakeBroker()
    for number in (0, 30):
        broker.append(LABELS, encode(label(number)), b"u")
    running = Running(broker, tmp_path)
    running.drain(broker)
    running.archive.flush()

    assert [path.parent.name for path in ArchiveStore(tmp_path).files(LABELS)] == ["day=2026-03-01", "day=2026-03-02"]
    reader = ArchiveReader(tmp_path)
    assert reader.labels(START, START + timedelta(days=5))["transaction_id"].to_pylist() == ["t00000"]
    assert sorted(reader.labels(START, START + timedelta(days=9))["transaction_id"].to_pylist()) == ["t00000", "t00030"]


@pytest.mark.parametrize("second_batch", [1, 3, 11, 50])
def test_a_kill_before_a_flush_loses_and_repeats_nothing_though_batches_differ_afterwards(
    tmp_path: Path, second_batch: int
) -> None:
    broker = FakeBroker(partitions=2)
    fill(broker, range(35))
    first = Running(broker, tmp_path, rows=10, batch=7)
    first.drain(broker)
    assert first.archive.buffered > 0
    first.kill()
    fill(broker, range(35, 60))
    second = Running(broker, tmp_path, rows=13, batch=second_batch)
    second.drain(broker)
    second.archive.flush()
    assert rows_of(tmp_path) == logged(broker)


class CutShort(Archive):
    """Dies after the files of a flush stand, before it says so."""

    def flush(self) -> None:
        class Deaf(ArchiveStore):
            def save_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
                raise KeyboardInterrupt

        self._store.__class__ = Deaf
        super().flush()


@pytest.mark.parametrize(("first_rows", "second_rows"), [(30, 10), (10, 30), (20, 20)])
def test_files_of_a_flush_that_was_cut_short_are_replaced_not_repeated(
    tmp_path: Path, first_rows: int, second_rows: int
) -> None:
    broker = FakeBroker()
    fill(broker, range(40))
    first = Running(broker, tmp_path, rows=first_rows, batch=5, archive=CutShort)
    with pytest.raises(KeyboardInterrupt):
        first.drain(broker)
    left = rows_of(tmp_path)
    assert left
    first.kill()
    second = Running(broker, tmp_path, rows=second_rows, batch=5)
    second.drain(broker)
    second.archive.flush()
    assert rows_of(tmp_path) == logged(broker)


def test_a_deleted_archive_is_written_again_from_the_log(tmp_path: Path) -> None:
    broker = FakeBroker()
    fill(broker, range(20))
    first = Running(broker, tmp_path / "one")
    first.drain(broker)
    first.kill()
    second = Running(broker, tmp_path / "two")
    second.drain(broker)
    second.archive.flush()
    assert rows_of(tmp_path / "two") == logged(broker)


def test_a_group_without_offsets_goes_on_where_the_archive_ends_and_dead_letters_nothing_twice(tmp_path: Path) -> None:
    broker = FakeBroker(partitions=2)
    broker.append(PREDICTIONS, b"{", b"k", partition=0)
    fill(broker, range(20))
    first = Running(broker, tmp_path)
    first.drain(broker)
    first.archive.flush()
    first.kill()
    broker.forget("archive")
    fill(broker, range(20, 30))

    second = Running(broker, tmp_path)
    second.drain(broker)
    second.archive.flush()

    assert len(rows_of(tmp_path)) == 30
    assert len(broker.records(f"{PREDICTIONS}-dlq")) == 1


def test_a_topic_that_is_made_again_and_is_longer_than_the_archive_is_read_from_its_beginning(tmp_path: Path) -> None:
    broker = FakeBroker(partitions=2)
    fill(broker, range(10))
    first = Running(broker, tmp_path)
    first.drain(broker)
    first.archive.flush()
    first.kill()
    broker.remake(PREDICTIONS)
    fill(broker, range(100, 140))

    second = Running(broker, tmp_path)
    second.drain(broker)
    second.archive.flush()

    ids = ArchiveReader(tmp_path).predictions((), START, START + timedelta(days=90))["transaction_id"].to_pylist()
    assert sorted(ids) == [f"t{number:05d}" for number in (*range(10), *range(100, 140))]


def test_an_archive_of_an_earlier_version_is_not_read_again(tmp_path: Path) -> None:
    broker = FakeBroker()
    fill(broker, range(10))
    first = Running(broker, tmp_path)
    first.drain(broker)
    first.archive.flush()
    first.kill()
    (tmp_path / "topics.json").unlink()
    fill(broker, range(10, 15))

    second = Running(broker, tmp_path)
    second.drain(broker)
    second.archive.flush()

    assert rows_of(tmp_path) == logged(broker)
    assert (tmp_path / "topics.json").exists()


def test_files_outlive_a_topic_that_is_made_anew(tmp_path: Path) -> None:
    for numbers in (range(20), range(100, 115)):
        broker = FakeBroker()
        fill(broker, numbers)
        running = Running(broker, tmp_path)
        running.drain(broker)
        running.archive.flush()
    ids = ArchiveReader(tmp_path).predictions((), START, START + timedelta(days=90))["transaction_id"].to_pylist()
    assert sorted(ids) == [f"t{number:05d}" for number in (*range(20), *range(100, 115))]


def test_transaction_markers_between_records_do_not_matter(tmp_path: Path) -> None:
    broker = FakeBroker()
    producer, bystander = FakeTransactionalProducer(broker), FakeConsumer(broker)
    producer.init()
    for number in range(25):
        producer.begin()
        producer.send_all([Outgoing(PREDICTIONS, encode(verdict(number)), b"u")])
        producer.commit({}, bystander)
    running = Running(broker, tmp_path, rows=10, batch=4)
    for _ in range(50):
        running.loop.run_once()
    running.kill()
    again = Running(broker, tmp_path, rows=6, batch=9)
    for _ in range(50):
        again.loop.run_once()
    again.archive.flush()
    assert rows_of(tmp_path) == logged(broker)


def test_the_buffer_is_flushed_when_it_is_old_even_if_nothing_more_comes(tmp_path: Path) -> None:
    broker = FakeBroker()
    fill(broker, range(3))
    running = Running(broker, tmp_path, rows=1_000)
    running.drain(broker)
    assert rows_of(tmp_path) == []
    running.clock.set(running.clock.now() + timedelta(seconds=6))
    running.loop.run_once()
    assert rows_of(tmp_path) == logged(broker)


def test_a_graceful_stop_flushes(tmp_path: Path) -> None:
    broker = FakeBroker()
    fill(broker, range(3))
    running = Running(broker, tmp_path, rows=1_000)
    running.drain(broker)
    running.stop.set()
    running.loop.run()
    assert rows_of(tmp_path) == logged(broker)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"{", b"malformed_json"),
        (encode(verdict(1, features=b"short")), b"invalid_field"),
        (encode(verdict(1, feature_set="v9:v1,v2")), b"invalid_field"),
        (encode(verdict(1, FeatureLayout(("score", "v2")))), b"invalid_field"),
    ],
)
def test_a_bad_verdict_is_dead_lettered_and_the_others_are_archived(
    tmp_path: Path, value: bytes, reason: bytes
) -> None:
    broker = FakeBroker()
    fill(broker, [0])
    bad = broker.append(PREDICTIONS, value, b"u")
    fill(broker, [2])
    running = Running(broker, tmp_path)
    running.drain(broker)
    running.archive.flush()
    [dead] = broker.records(f"{PREDICTIONS}-dlq")
    assert ("dlq.reason", reason) in dead.headers
    assert rows_of(tmp_path) == [row for row in logged(broker) if row[1] != bad.offset]


@pytest.mark.parametrize("field", ["occurred_at", "reported_at"])
@pytest.mark.parametrize(
    ("time", "reason"),
    [
        (b"0001-01-01T00:00:00+23:59", b"time_before_1970"),
        (b"1969-12-31T23:59:59Z", b"time_before_1970"),
        (b"2099-01-01T00:00:00Z", b"time_in_future"),
        (b"9999-12-31T23:59:59-23:59", b"time_in_future"),
    ],
)
def test_a_label_whose_time_arithmetic_cannot_hold_is_dead_lettered_and_the_others_are_archived(
    tmp_path: Path, field: str, time: bytes, reason: bytes
) -> None:
    broker = FakeBroker()
    event = label(1)
    broker.append(LABELS, encode(event).replace(getattr(event, field).isoformat()[:19].encode() + b"Z", time), b"u")
    broker.append(LABELS, encode(label(2)), b"u")
    running = Running(broker, tmp_path)
    running.drain(broker)
    running.archive.flush()
    [dead] = broker.records(f"{LABELS}-dlq")
    assert ("dlq.reason", reason) in dead.headers
    assert len(rows_of(tmp_path, LABELS)) == 1


def test_a_day_with_two_layouts_reads_as_one_table(tmp_path: Path) -> None:
    broker = FakeBroker()
    for number, layout in ((0, LAYOUT), (1, FeatureLayout(("v2", "v3")))):
        broker.append(PREDICTIONS, encode(verdict(number, layout)), b"u")
    running = Running(broker, tmp_path)
    running.drain(broker)
    running.archive.flush()
    table = (
        ArchiveReader(tmp_path)
        .predictions((*LAYOUT.names, "v3"), START, START + timedelta(days=1))
        .sort_by("occurred_us")
        .to_pylist()
    )
    assert (table[0]["v1"], table[0]["v3"]) == (17.0, None)
    assert (table[1]["v1"], table[1]["v2"]) == (None, 18.0)
    assert ArchiveReader(tmp_path).feature_set(START) == LAYOUT.id


def test_a_disk_that_refuses_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    broker = FakeBroker()
    fill(broker, range(25))
    root = tmp_path / "archive"
    running = Running(broker, root)
    root.write_text("in the way")
    for _ in range(12):
        running.loop.run_once()
    assert "disk" in running.health.unmet()
    root.unlink()
    running.drain(broker)
    running.archive.flush()
    assert running.health.ready
    assert rows_of(root) == logged(broker)


def test_only_one_process_writes_to_an_archive(tmp_path: Path) -> None:
    first, second = ArchiveStore(tmp_path), ArchiveStore(tmp_path)
    first.lock()
    with pytest.raises(DependencyUnavailable, match="another process"):
        second.lock()


def test_the_newest_event_time_is_that_of_the_verdicts(tmp_path: Path) -> None:
    assert ArchiveReader(tmp_path).newest() is None
    broker = FakeBroker()
    fill(broker, [3, 60, 9])
    running = Running(broker, tmp_path)
    running.drain(broker)
    running.archive.flush()
    assert ArchiveReader(tmp_path).newest() == START + timedelta(hours=60)


def test_the_handler_says_where_reading_begins(tmp_path: Path) -> None:
    clock, identify = FixedClock(START + timedelta(days=365)), FakeBroker().identify
    archive = Archive(ArchiveStore(tmp_path), STREAMS, clock, flush_rows=10, flush_s=5, identify=identify)
    partition = TopicPartition(PREDICTIONS, 0)
    assert archive.on_assigned(partition, None) is None
    outcome = archive([Record(PREDICTIONS, 0, 4, None, encode(verdict(4)))])
    assert outcome == Outcome()
    archive.flush()
    archive.on_dropped(partition)
    assert archive.on_assigned(partition, 9) == 5
