"""The outbox on a disk: what it took is there after a kill, and a file that cannot be trusted is not used."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from centinela.events import AttachedVerdict, TransactionReceived, encode
from centinela.kafka.port import Outgoing
from centinela.testing.clock import FixedClock
from centinela_predictor.gateway.outbox import Outbox, OutboxFull, OutboxUnusable
from centinela_predictor.gateway.outbox_sender import restore
from centinela_predictor.gateway.verdict_cache import VerdictCache

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
Open = Callable[..., Outbox]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Opens the test's outbox, again each time."""

    def open_(*, clock: FixedClock | None = None, max_records: int = 100, max_bytes: int = 1_000_000) -> Outbox:
        return Outbox(
            tmp_path / "outbox" / "o.sqlite", clock or FixedClock(NOW), max_records=max_records, max_bytes=max_bytes
        )

    return open_


def record(n: int, value: bytes = b"value") -> tuple[str, Outgoing]:
    return f"tx-{n}", Outgoing("transactions", value, b"user", (("ce_id", b"%d" % n), ("empty", b"")), None)


def test_what_was_appended_is_there_in_its_order_after_a_new_start(opened: Open) -> None:
    first = opened()
    first.append([record(2), record(1)])
    first.append([record(0)])
    first.close()
    again = opened()
    assert [(kept.transaction_id, kept.outgoing) for kept in again.oldest(10)] == [record(2), record(1), record(0)]
    assert (len(again), again.size_bytes) == (3, sum(kept.size for kept in again.oldest(10)))


def test_what_was_removed_is_gone_and_gives_its_room_back(opened: Open) -> None:
    outbox = opened(max_records=2)
    outbox.append([record(0), record(1)])
    assert not outbox.has_room(1)
    with pytest.raises(OutboxFull):
        outbox.append([record(2)])
    outbox.remove(outbox.oldest(1))
    assert outbox.has_room(1)
    outbox.append([record(2)])
    outbox.close()
    again = opened()
    assert [kept.transaction_id for kept in again.oldest(10)] == ["tx-1", "tx-2"]
    again.remove(again.oldest(10))
    assert (len(again), again.size_bytes, again.oldest_s) == (0, 0, 0.0)


def test_bytes_are_bounded_too_and_what_does_not_fit_is_refused_whole(opened: Open) -> None:
    outbox = opened(max_bytes=1_000)
    outbox.append([record(0, b"x" * 500)])
    with pytest.raises(OutboxFull):
        outbox.append([record(1), record(2, b"x" * 500)])
    assert [kept.transaction_id for kept in outbox.oldest(10)] == ["tx-0"]


def test_nobody_else_may_read_the_file(opened: Open, tmp_path: Path) -> None:
    opened().append([record(0)])
    assert {file.stat().st_mode & 0o077 for file in (tmp_path / "outbox").iterdir()} == {0}


def test_its_age_is_that_of_its_oldest_record(opened: Open) -> None:
    clock = FixedClock(NOW)
    outbox = opened(clock=clock)
    outbox.append([record(0)])
    clock.set(NOW + timedelta(minutes=2))
    outbox.append([record(1)])
    assert outbox.oldest_s == 120.0


def test_a_record_set_aside_is_out_of_the_way_and_not_lost(opened: Open, tmp_path: Path) -> None:
    outbox = opened()
    outbox.append([record(0), record(1)])
    outbox.set_aside(outbox.oldest(1)[0], "too large")
    assert [kept.transaction_id for kept in outbox.oldest(10)] == ["tx-1"]
    assert len(outbox) == 1
    outbox.close()
    rows = (
        sqlite3.connect(tmp_path / "outbox" / "o.sqlite")
        .execute("SELECT transaction_id, reason FROM refused")
        .fetchall()
    )
    assert rows == [("tx-0", "too large")]


def test_a_file_that_is_not_an_outbox_is_refused(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / "o.sqlite").write_bytes(b"no database " * 1_000)
    with pytest.raises(OutboxUnusable, match="cannot be used"):
        opened()


def test_a_record_that_changed_on_the_disk_is_not_sent(opened: Open, tmp_path: Path) -> None:
    outbox = opened()
    outbox.append([record(0, b"amount 10")])
    outbox.close()
    file = tmp_path / "outbox" / "o.sqlite"
    file.write_bytes(file.read_bytes().replace(b"amount 10", b"amount 99"))
    with pytest.raises(OutboxUnusable, match="tx-0"):
        opened().oldest(1)


def test_a_second_process_does_not_get_it(opened: Open, tmp_path: Path) -> None:
    outbox = opened()
    outbox.append([record(0)])
    second = (
        "import sys; from pathlib import Path; from centinela.clock import SystemClock\n"
        "from centinela_predictor.gateway.outbox import Outbox\n"
        "Outbox(Path(sys.argv[1]), SystemClock(), max_records=1, max_bytes=1000000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", second, str(tmp_path / "outbox" / "o.sqlite")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "OutboxUnusable" in done.stderr
    assert "locked" in done.stderr


def test_what_append_returned_from_is_there_after_a_kill(opened: Open, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from centinela.clock import SystemClock; from centinela.kafka.port"
        " import Outgoing\nfrom centinela_predictor.gateway.outbox import Outbox\noutbox = Outbox(Path(sys.argv[1]),"
        " SystemClock(), max_records=10**6, max_bytes=10**9)\nfor n in range(10**6):\n    outbox.append([(f'tx-{n}',"
        " Outgoing('transactions', b'v'))])\n    print(n, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "outbox" / "o.sqlite")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(30):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        reported = [int(line) for line in process.stdout.read().splitlines() if line]
    kept = [row.transaction_id for row in opened(max_records=10**6, max_bytes=10**9).oldest(10**6)]
    assert kept[: max([29, *reported]) + 1] == [f"tx-{n}" for n in range(max([29, *reported]) + 1)]


def test_a_disk_that_refuses_writes_is_not_a_crash_and_leaves_nothing_half_written(opened: Open) -> None:
    outbox = opened()
    outbox.append([record(0)])
    outbox._database.execute("PRAGMA max_page_count = 5")
    with pytest.raises(OutboxFull, match="cannot be written"):
        outbox.append([record(n, b"x" * 2_000) for n in range(1, 20)])
    assert [kept.transaction_id for kept in outbox.oldest(100)] == ["tx-0"]
    assert len(outbox) == 1


def test_the_book_knows_after_a_start_what_the_outbox_has(opened: Open) -> None:
    transaction = TransactionReceived(
        transaction_id="tx",
        occurred_at=NOW,
        amount=5.0,
        user_id="u",
        attributes={"v1": 1.0},
        verdict=AttachedVerdict(
            origin="gateway", decision="review", variant="champion", score=0.6, model_version="3", scored_at=NOW
        ),
    )
    outbox = opened()
    outbox.append([("tx", Outgoing("transactions", encode(transaction), b"u"))])
    cache = VerdictCache(10)
    assert restore(outbox, cache) == 1
    entry = cache.get("tx")
    assert entry is not None
    assert (entry.pending, entry.outgoing, entry.verdict.decision, entry.verdict.attributes) == (
        True,
        None,
        "review",
        {"v1": 1.0},
    )
