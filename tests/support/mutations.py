"""Records as they ought not to be: valid ones, changed at random but repeatably."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from centinela.events import AttachedVerdict, TransactionReceived, encode

ODD_VALUES = (
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e9",
    b"1.0000000000000002e9",
    b"1e400",
    b"-0.0",
    b"NaN",
    b"Infinity",
    b"1" * 400,
    b"1" * 5_000,
    b'""',
    b'"' + b"x" * 128 + b'"',
    b'"' + b"x" * 129 + b'"',
    b'"\\ud800"',
    b'"\\ud83d\\ude00"',
    b'"\\u0000"',
    b'"\xff\xfe"',
    b"[]",
    b"{}",
    b'{"a":1}',
    b"[" * 50,
    b"[" * 3_000 + b"]" * 3_000,
    b'{"a":' * 2_000,
    b'"2025-01-01T00:00:00"',
    b'"0001-01-01T00:00:00+23:59"',
    b'"9999-12-31T23:59:59-23:59"',
    b'"2025-02-30T00:00:00Z"',
    b'"1969-12-31T23:59:59Z"',
    b'"2999-01-01T00:00:00Z"',
    b'"1970-01-01T00:00:00.000000001Z"',
    b"2",
    b"9223372036854775808",
)
ODD_BYTES = (
    b"\x00",
    b"\xff",
    b"\xc3",
    b"\\",
    b'"',
    b",",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"e",
    b"-",
    b".",
    b" ",
)


def corpus(start: datetime) -> list[bytes]:
    """Valid transactions of every shape: bare, full, with a verdict of each origin, in another order of fields, with
    unknown fields."""
    bare = TransactionReceived(transaction_id="t-1", occurred_at=start, amount=12.5)
    full = TransactionReceived(
        transaction_id="t-2",
        occurred_at=start + timedelta(seconds=1),
        amount=0.01,
        user_id="ü-1",
        terminal_id="99",
        currency="USD",
        attributes={"v1": 0.5, "v2": None, "v3": -3},
    )
    history = TransactionReceived(
        transaction_id="t-3",
        occurred_at=start,
        amount=5,
        user_id="u",
        verdict=AttachedVerdict(origin="history", decision="approve", variant="none"),
    )
    served = TransactionReceived(
        transaction_id="t-4",
        occurred_at=start,
        amount=5,
        user_id="u",
        verdict=AttachedVerdict(
            origin="gateway",
            decision="decline",
            variant="champion",
            score=0.9,
            threshold=0.5,
            model_version="1",
            feature_set="v1:",
            features=bytes(8 * 17),
            reasons=("amount",),
            scored_at=start,
        ),
    )
    at = start.isoformat().encode()
    strange = (
        b'{"amount": 3, "unknown": {"deep": [1, 2]}, "occurred_at": "'
        + at
        + b'", "transaction_id": "t-5", "version": 1}'
    )
    return [*map(encode, (bare, full, history, served)), strange]


class Mutator:
    """Changes records of *records* at random: bytes, values, order, length.

    Args:
        seed: Equal seeds give equal changes.
    """

    def __init__(self, records: Sequence[bytes], seed: int) -> None:
        self._records = list(records)
        self._random = random.Random(seed)  # noqa: S311 not for secrets
        self._ways: tuple[Callable[[bytes], bytes], ...] = (
            self._flip,
            self._cut,
            self._insert,
            self._drop,
            self._splice,
            self._value,
            self._value,
            self._value,
            self._repeat_field,
            self._same,
        )

    def one(self) -> bytes:
        """The next record, after one change or a few."""
        record = self._random.choice(self._records)
        for _ in range(self._random.choice((1, 1, 1, 2, 3, 8))):
            record = self._random.choice(self._ways)(record)
        return record

    def many(self, count: int) -> Iterator[bytes]:
        """*count* records."""
        return (self.one() for _ in range(count))

    def _at(self, record: bytes) -> int:
        return self._random.randrange(len(record) + 1)

    def _same(self, record: bytes) -> bytes:
        return record

    def _flip(self, record: bytes) -> bytes:
        if not record:
            return record
        changed = bytearray(record)
        changed[self._random.randrange(len(record))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _cut(self, record: bytes) -> bytes:
        return record[: self._at(record)] if self._random.random() < 0.5 else record[self._at(record) :]

    def _insert(self, record: bytes) -> bytes:
        at = self._at(record)
        return record[:at] + self._random.choice(ODD_BYTES) * self._random.choice((1, 1, 2, 300)) + record[at:]

    def _drop(self, record: bytes) -> bytes:
        first, last = sorted((self._at(record), self._at(record)))
        return record[:first] + record[last:]

    def _splice(self, record: bytes) -> bytes:
        other = self._random.choice(self._records)
        return record[: self._at(record)] + other[self._at(other) :]

    def _value(self, record: bytes) -> bytes:
        """Another value after one of the colons, up to the next comma or brace."""
        colons = [n for n, byte in enumerate(record) if byte == 0x3A]
        if not colons:
            return self._flip(record)
        at = self._random.choice(colons) + 1
        end = min((found for mark in b",}" if (found := record.find(mark, at)) >= 0), default=len(record))
        return record[:at] + self._random.choice(ODD_VALUES) + record[end:]

    def _repeat_field(self, record: bytes) -> bytes:
        first = record.find(b",")
        return (
            record[: first + 1] + record[1 : first + 1] * self._random.choice((1, 2)) + record[first + 1 :]
            if first > 0
            else record
        )
