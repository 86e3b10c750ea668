"""Rows that ``replay`` rejects are dead letters that never were in the log: the audit counts them apart, and they hide
nothing."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from centinela import topics
from centinela.commands.audit import report
from centinela.datasets.rows import Reject
from centinela.deadletters.record import dead_letter
from centinela.kafka.port import Record
from centinela.operations.reconcile import LogAudit, Reconciliation
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeProducer
from centinela_ingest.bulk.bulk_producer import BulkOptions, BulkProducer

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LOG, VERDICTS, LETTERS = topics.TRANSACTIONS.name, topics.PREDICTIONS.name, topics.TRANSACTIONS.dlq


class Replayed:
    """A log of two transactions and a broken record, next to which two rows of the file were rejected."""

    def __init__(self) -> None:
        self.broker = FakeBroker()
        for topic in (LOG, VERDICTS, LETTERS):
            self.broker.partitions(topic)
        self.first, self.second = (self.broker.append(LOG, b'{"transaction_id":"%s"}' % name) for name in (b"a", b"b"))
        self.broken = self.broker.append(LOG, b"{broken")
        self.bulk = BulkProducer(
            FakeProducer(self.broker),
            BulkOptions(source="replay/mine.csv"),
            stop=threading.Event(),
            clock=FixedClock(NOW),
        )
        self.bulk.reject([Reject(row, "invalid_field", "amount: not a number", {"amount": "ten"}) for row in (1, 2)])
        self.bulk.flush()

    def verdict(self, record: Record) -> None:
        self.broker.append(VERDICTS, record.value)

    def letter(self, record: Record) -> None:
        letter = dead_letter(record, "malformed_json", "", at=NOW)
        self.broker.append(LETTERS, letter.value, letter.key, headers=letter.headers)

    def audit(self) -> Reconciliation:
        return LogAudit(FakeConsumer(self.broker)).read()


@pytest.fixture
def replayed() -> Replayed:
    return Replayed()


def test_rejected_rows_reconcile_and_are_counted_separately(
    replayed: Replayed, capsys: pytest.CaptureFixture[str]
) -> None:
    replayed.verdict(replayed.first)
    replayed.verdict(replayed.second)
    replayed.letter(replayed.broken)

    result = replayed.audit()

    assert result.reconciled
    assert (result.records, result.verdicts, result.dead_letters, result.rejected_rows, result.stray_letters) == (
        3,
        2,
        3,
        2,
        0,
    )
    assert report(LogAudit(FakeConsumer(replayed.broker)), 0, as_json=True)
    assert '"rejected_rows": 2' in capsys.readouterr().out


def test_as_many_rejected_rows_as_losses_hide_no_loss(replayed: Replayed) -> None:
    replayed.verdict(replayed.first)

    result = replayed.audit()

    assert not result.reconciled
    assert result.missing.tolist() == [replayed.second.offset, replayed.broken.offset]
    assert result.rejected_rows == 2


def test_a_dead_letter_of_the_log_is_not_a_rejected_row_although_its_record_claimed_to_be_one(
    replayed: Replayed,
) -> None:
    replayed.verdict(replayed.first)
    replayed.verdict(replayed.second)
    replayed.letter(replayed.broken._replace(headers=(("dlq.source", b"replay/mine.csv"), ("dlq.row", b"3"))))

    result = replayed.audit()

    assert result.reconciled
    assert result.rejected_rows == 2


def test_a_verdict_on_a_rejected_row_is_unexpected(replayed: Replayed) -> None:
    replayed.verdict(replayed.first)
    replayed.verdict(replayed.second)
    replayed.letter(replayed.broken)
    replayed.broker.append(VERDICTS, b'{"transaction_id":"row-1"}')

    result = replayed.audit()

    assert not result.reconciled
    assert len(result.unexpected) == 1
