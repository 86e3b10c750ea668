"""The audit's arithmetic against a plain count, and its reading of the log on the fake broker."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centinela.commands.audit import report
from centinela.deadletters.entries import redrive_count
from centinela.deadletters.record import dead_letter
from centinela.kafka.port import Outgoing, Record
from centinela.operations.reconcile import (
    LogAudit,
    Position,
    Reconciliation,
    id_hash,
    letter_origin,
    pack,
    reconcile,
    transaction_id,
    unpack,
)
from centinela.operations.redrive import DeadLetterStore, Filter
from centinela.testing.clock import FixedClock
from centinela.testing.kafka import FakeBroker, FakeConsumer, FakeTransactionalProducer

AT = datetime(2018, 4, 1, tzinfo=UTC)
LOG, VERDICTS, LETTERS = "transactions", "predictions", "transactions-dlq"


def u64(numbers: list[int]) -> np.ndarray:
    return np.array(numbers, np.uint64)


@settings(max_examples=300, deadline=None)
@given(
    log=st.lists(st.integers(0, 6), max_size=12),
    verdicts=st.lists(st.integers(1, 8), max_size=12),
    letters=st.lists(st.integers(0, 14), max_size=6),
)
def test_the_counts_agree_with_counting_one_by_one(log: list[int], verdicts: list[int], letters: list[int]) -> None:
    result = reconcile(
        u64(log), u64(list(range(len(log)))), u64(verdicts), u64(list(range(len(verdicts)))), u64(letters)
    )

    lettered = Counter(letters)
    live = [(offset, number) for offset, number in enumerate(log) if number and offset not in lettered]
    first_of = {number: offset for offset, number in reversed(live)}
    given_to = Counter(verdicts)
    assert result.missing.tolist() == sorted(
        [offset for number, offset in first_of.items() if not given_to[number]]
        + [offset for offset, number in enumerate(log) if not number and offset not in lettered]
    )
    assert len(result.repeated) == sum(count - 1 for count in given_to.values())
    assert [verdicts[n] for n in result.unexpected.tolist()] == [v for v in verdicts if v not in first_of]
    assert result.repeated_letters.tolist() == [n for n in sorted(lettered) if lettered[n] > 1 and n < len(log)]
    assert result.stray_letters == sum(n >= len(log) for n in letters)
    assert (result.records, result.verdicts, result.dead_letters) == (len(log), len(verdicts), len(letters))
    assert result.transactions == len(first_of)
    assert result.duplicates == len(live) - len(first_of)


@given(st.integers(0, 65_535), st.integers(0, 2**48 - 1))
def test_a_position_survives_packing(partition: int, offset: int) -> None:
    assert unpack(pack(partition, offset)) == Position(partition, offset)


@pytest.mark.parametrize(
    "value", [None, b"", b"{", b"[]", b"{}", b'{"transaction_id": 7}', b'{"transaction_id": ""}', b"\xff"]
)
def test_a_value_without_an_id_is_undecodable(value: bytes | None) -> None:
    assert transaction_id(value) is None
    assert id_hash(value) == 0


def test_only_letters_of_the_audited_topic_have_an_origin() -> None:
    letter = dead_letter(Record(LOG, 3, 41, None, b"x"), "malformed_json", "", at=AT)
    kept = Record(letter.topic, 0, 0, letter.key, letter.value, letter.headers)

    assert letter_origin(kept, LOG) == pack(3, 41)
    assert letter_origin(kept, "labels") is None
    assert letter_origin(kept._replace(headers=()), LOG) is None


class Platform:
    """A log with outcomes, written as the platform writes them."""

    def __init__(self) -> None:
        self.broker = FakeBroker(partitions=2)
        self.producer = FakeTransactionalProducer(self.broker)
        for topic in (LOG, VERDICTS, LETTERS):
            self.broker.partitions(topic)

    def receive(self, value: bytes) -> Record:
        return self.broker.append(LOG, value, value)

    def transaction(self, name: str) -> Record:
        return self.receive(b'{"transaction_id":"%s","amount":1}' % name.encode())

    def verdict(self, name: str, *, abort: bool = False) -> None:
        self._write(Outgoing(VERDICTS, b'{"transaction_id":"%s"}' % name.encode(), name.encode()), abort)

    def letter(self, record: Record) -> None:
        self._write(dead_letter(record, "malformed_json", "", at=AT), abort=False)

    def redrive(self) -> Record:
        """Put the one open letter back; the record."""
        store = DeadLetterStore(lambda: FakeConsumer(self.broker), [LETTERS], FixedClock(AT))
        [_] = store.redrive(FakeTransactionalProducer(self.broker, "dlq"), Filter(), by="ana").redrive
        return max(
            (r for r in self.broker.records(LOG) if redrive_count(r.headers)), key=lambda r: redrive_count(r.headers)
        )

    def drop(self) -> None:
        DeadLetterStore(lambda: FakeConsumer(self.broker), [LETTERS], FixedClock(AT)).drop(
            FakeTransactionalProducer(self.broker, "dlq"), Filter(), by="ana", why="a test"
        )

    def audit(self) -> tuple[LogAudit, Reconciliation]:
        audit = LogAudit(FakeConsumer(self.broker))
        return audit, audit.read()

    def _write(self, out: Outgoing, abort: bool) -> None:
        self.producer.begin()
        self.producer.send_all([out])
        if abort:
            self.producer.abort()
        else:
            self.producer.commit({}, FakeConsumer(self.broker))


def test_a_log_with_one_outcome_each_reconciles() -> None:
    platform = Platform()
    for name in ("a", "b", "a"):
        platform.transaction(name)
    platform.letter(platform.receive(b"{broken"))
    platform.letter(platform.receive(b'{"transaction_id":"b","amount":-1}'))
    platform.verdict("a", abort=True)
    platform.verdict("a")
    platform.verdict("b")

    _, result = platform.audit()

    assert result.reconciled
    assert (result.records, result.transactions, result.duplicates, result.undecodable) == (5, 2, 1, 1)
    assert (result.verdicts, result.dead_letters) == (2, 2)


def test_a_rejected_row_of_a_file_has_its_outcome_and_is_no_stray_letter() -> None:
    platform = Platform()
    platform.transaction("a")
    platform.verdict("a")
    for headers in ((("dlq.source", b"replay/own.csv"), ("dlq.row", b"7")), (("dlq.source", b"somebody"),)):
        _, before = platform.audit()
        platform.broker.append(LETTERS, b"{}", headers=headers)
    _, after = platform.audit()

    assert (before.reconciled, before.dead_letters, before.rejected_rows, before.stray_letters) == (True, 1, 1, 0)
    assert (after.reconciled, after.dead_letters, after.rejected_rows, after.stray_letters) == (False, 2, 1, 1)


def test_what_is_missing_or_repeated_is_named() -> None:
    platform = Platform()
    for name in ("lost", "twice", "fine"):
        platform.transaction(name)
    broken = platform.receive(b"{broken")
    for name in ("twice", "fine", "twice", "invented"):
        platform.verdict(name)

    audit, result = platform.audit()

    assert not result.reconciled
    assert sorted(audit.ids_at(LOG, result.missing)) == sorted(
        ["lost", f"transactions[{broken.partition}]@{broken.offset}"]
    )
    assert audit.ids_at(VERDICTS, result.repeated) == ["twice"]
    assert audit.ids_at(VERDICTS, result.unexpected) == ["invented"]


def test_the_command_says_what_is_wrong_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    platform = Platform()
    platform.transaction("lost")
    platform.transaction("fine")
    platform.verdict("fine")

    reconciled = [report(LogAudit(FakeConsumer(platform.broker)), 0, as_json=as_json) for as_json in (True, False)]

    machine, people = capsys.readouterr().out.split("\n", 1)
    answer = json.loads(machine)
    assert reconciled == [False, False]
    assert (answer["records"], answer["verdicts"], answer["missing"], answer["reconciled"]) == (2, 1, 1, False)
    assert answer["first_ids"] == {"missing": ["lost"]}
    assert "missing: lost" in people
    assert "not reconciled" in people


def test_where_retention_cut_the_log_an_outcome_without_its_transaction_is_no_fault() -> None:
    cut = reconcile(u64([]), u64([]), u64([7]), u64([0]), u64([3]), log_is_whole=False)

    assert cut.reconciled
    assert not reconcile(u64([]), u64([]), u64([7]), u64([0]), u64([]), log_is_whole=True).reconciled


def test_an_outcome_that_comes_late_is_waited_for() -> None:
    platform = Platform()
    platform.transaction("a")
    audit, before = platform.audit()
    platform.verdict("a")

    after = audit.read_until_reconciled(5.0)

    assert not before.reconciled
    assert after.reconciled


def test_waiting_ends_when_the_outcome_never_comes() -> None:
    platform = Platform()
    platform.transaction("a")
    audit, _ = platform.audit()

    assert not audit.read_until_reconciled(0.01).reconciled


def test_a_redriven_record_is_missing_until_it_has_its_verdict() -> None:
    platform = Platform()
    platform.letter(platform.transaction("a"))
    again = platform.redrive()
    audit, before = platform.audit()
    named = audit.ids_at(LOG, before.missing)
    platform.verdict("a")
    _, after = platform.audit()

    assert (before.reconciled, named) == (False, ["a"])
    assert before.missing.tolist() == [pack(again.partition, again.offset)]
    assert after.reconciled
    assert (after.records, after.transactions, after.verdicts, after.dead_letters) == (2, 1, 1, 1)
    assert (after.redrives.redriven, after.open_letters) == (1, 0)


def test_a_redriven_record_that_dies_again_has_its_own_letter() -> None:
    platform = Platform()
    platform.letter(platform.receive(b"{broken"))
    platform.letter(platform.redrive())
    _, once = platform.audit()
    platform.letter(platform.redrive())
    _, twice = platform.audit()

    assert once.reconciled
    assert twice.reconciled
    assert (twice.records, twice.dead_letters, twice.redrives.redriven, twice.open_letters) == (3, 3, 2, 1)


def test_a_dropped_letter_is_still_its_records_outcome() -> None:
    platform = Platform()
    platform.letter(platform.receive(b"{broken"))
    platform.drop()
    _, result = platform.audit()

    assert result.reconciled
    assert (result.dead_letters, result.redrives.dropped, result.open_letters, result.stray_letters) == (1, 1, 0, 0)


def test_a_letter_redriven_twice_is_named() -> None:
    platform = Platform()
    platform.letter(platform.transaction("a"))
    again = platform.redrive()
    platform.broker.append(LOG, again.value, again.key, headers=again.headers)
    platform.verdict("a")

    audit, result = platform.audit()

    assert not result.reconciled
    assert audit.ids_at(LETTERS, result.redrives.twice) == ["a"]


def test_a_letter_closed_as_redriven_whose_record_is_not_in_the_log_is_named() -> None:
    platform, other = Platform(), Platform()
    for one in (platform, other):
        one.letter(one.transaction("a"))
    other.redrive()
    [resolution] = [r for r in other.broker.records(LETTERS) if dict(r.headers).get("dlq.closed")]
    platform.broker.append(LETTERS, None, headers=resolution.headers, partition=resolution.partition)

    audit, result = platform.audit()

    assert not result.reconciled
    assert audit.ids_at(LETTERS, result.redrives.lost) == ["a"]


def test_a_record_made_of_a_letter_that_nothing_closes_is_named() -> None:
    platform, other = Platform(), Platform()
    for one in (platform, other):
        one.letter(one.transaction("a"))
    again = other.redrive()
    platform.broker.append(LOG, again.value, again.key, headers=again.headers)
    platform.verdict("a")

    audit, result = platform.audit()

    assert not result.reconciled
    assert audit.ids_at(LETTERS, result.redrives.unresolved) == ["a"]
