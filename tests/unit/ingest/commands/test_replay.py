"""Files reach Kafka in the order of time, and rejected rows name their file."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from centinela import topics
from centinela.codec import Decoder
from centinela.datasets.options import FileOptions
from centinela.datasets.rows import LabelRule
from centinela.datasets.source import Order, open_files
from centinela.events import LabelReported, TransactionReceived
from centinela.kafka.headers import header
from centinela.kafka.port import Record
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeProducer
from centinela_ingest.bulk.bulk_producer import BulkOptions, BulkProducer
from centinela_ingest.commands.replay import order_notice, replay_files

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MAPPING = (
    "columns: {Datum: occurred_at, Betrag: amount, Kunde: user_id, Betrug: is_fraud}\nid_prefix: f-\ncurrency: CHF\n"
)


class Replay:
    """``replay`` of files into a Kafka in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = FakeBroker()
        self.bulk = BulkProducer(
            FakeProducer(self.broker), BulkOptions(source="replay/x"), stop=threading.Event(), clock=FixedClock(NOW)
        )
        (folder / "mapping.yaml").write_text(MAPPING)

    def write(self, name: str, rows: list[str]) -> None:
        """A file as German Excel writes it."""
        (self.folder / name).write_bytes(("\r\n".join(["Datum;Betrag;Kunde;Betrug", *rows]) + "\r\n").encode("cp1252"))

    def run(self, path: Path, *, sort: bool) -> None:
        files = open_files(path, str(self.folder / "mapping.yaml"), FileOptions.of(None, None, "cp1252"))
        assert replay_files(files, self.bulk, labels=LabelRule(timedelta(days=2)), now=NOW, sort=sort)

    def records(self, topic: str) -> list[Record]:
        return self.broker.records(topic)

    def transactions(self) -> list[TransactionReceived]:
        return [Decoder(TransactionReceived).decode(record.value) for record in self.records(topics.TRANSACTIONS.name)]


@pytest.fixture
def replay(tmp_path: Path) -> Replay:
    return Replay(tmp_path)


def test_rows_newest_first_are_sent_oldest_first_with_their_own_numbers(replay: Replay) -> None:
    rows = [f"{day:02d}.01.2026 10:00;{day},50 CHF;Müller;{int(day == 2)}" for day in range(20, 0, -1)]
    replay.write("t.csv", [*rows[:5], "gestern;1,00 CHF;Müller;0", *rows[5:]])

    replay.run(replay.folder / "t.csv", sort=True)

    sent = replay.transactions()
    assert [event.occurred_at.day for event in sent] == list(range(1, 21))
    assert [event.amount for event in sent] == [day + 0.5 for day in range(1, 21)]
    assert {(event.user_id, event.currency) for event in sent} == {("Müller", "CHF")}
    assert sent[0].transaction_id == "f-000000021"
    assert sent[-1].transaction_id == "f-000000001"
    assert [header(record.headers, "dlq.row") for record in replay.records(topics.TRANSACTIONS.dlq)] == ["6"]
    [label] = [Decoder(LabelReported).decode(record.value) for record in replay.records(topics.LABELS.name)]
    assert (label.transaction_id, label.reported_at.day) == ("f-000000020", 4)


def test_rows_are_sent_as_they_are_where_nobody_asks_for_an_order(replay: Replay) -> None:
    replay.write("t.csv", ["02.01.2026 10:00;1,50;a;0", "01.01.2026 10:00;2,50;a;0"])
    replay.run(replay.folder / "t.csv", sort=False)
    assert [event.amount for event in replay.transactions()] == [1.5, 2.5]


def test_a_rejected_row_of_a_folder_names_its_file(replay: Replay) -> None:
    for name in ("a.csv", "b.csv"):
        replay.write(name, ["01.01.2026 10:00;1,50;a;0", "kaputt"])
    replay.run(replay.folder, sort=False)
    letters = replay.records(topics.TRANSACTIONS.dlq)
    assert [(header(r.headers, "dlq.source"), header(r.headers, "dlq.row")) for r in letters] == [
        ("replay/x/a.csv", "2"),
        ("replay/x/b.csv", "2"),
    ]
    assert [event.transaction_id for event in replay.transactions()] == ["f-a.csv-000000001", "f-b.csv-000000001"]


@pytest.mark.parametrize(
    ("late", "sort", "notice"),
    [
        (0, True, None),
        (17, True, "17 of 20 rows are earlier than a row before them: all are sent in the order of time"),
        (
            17,
            False,
            "17 of 20 rows are earlier than a row before them: without --no-sort all are sent in order; as they",
        ),
    ],
)
def test_late_rows_are_announced(late: int, sort: bool, notice: str | None) -> None:
    found = order_notice(Order(rows=20, late=late), sort)
    assert found == notice or (found or "").startswith(notice or "?")
