"""What was acknowledged, and what is still on its way."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import xxhash

from tests.support.faultrun.workload import Item

_BUCKET_MS = 600_000


def fingerprint(value: bytes | None) -> int:
    """Tells one record's bytes from another's."""
    return 0 if value is None else xxhash.xxh3_64_intdigest(value)


@dataclass
class Ledger:
    """Promises that the system made, each of which the oracle holds it to. Thread-safe.

    Attributes:
        stored: Records that Kafka acknowledged, by topic: (partition, offset, what, id, fingerprint of the bytes).
        accepted: Transaction ids that an HTTP API acknowledged.
        answers: The gateway's answer by transaction id: the one of each 200.
        in_log: Ids of which the gateway said that they stand in the log already.
        refused: Ids of what an API refused for good.
        surprises: Answers that should not be: a refusal of something sound, two answers to one id that differ.
        attempts: HTTP answers by path and status; 0 where none came.
    """

    stored: dict[str, list[tuple[int, int, str, str, int]]] = field(
        default_factory=lambda: {"transactions": [], "labels": []}
    )
    accepted: set[str] = field(default_factory=set)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    in_log: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    surprises: list[str] = field(default_factory=list)
    attempts: Counter[tuple[str, int]] = field(default_factory=Counter)
    sent: Counter[tuple[str, str]] = field(default_factory=Counter)
    _pending: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, item: Item) -> None:
        """*item* is about to be sent."""
        with self._lock:
            self.sent[item.path, item.what] += 1
            self._pending[item.at_ms // _BUCKET_MS] = self._pending.get(item.at_ms // _BUCKET_MS, 0) + 1

    def end(self, item: Item) -> None:
        """*item* was acknowledged or refused."""
        bucket = item.at_ms // _BUCKET_MS
        with self._lock:
            self._pending[bucket] -= 1
            if not self._pending[bucket]:
                del self._pending[bucket]

    @property
    def pending(self) -> int:
        """Items neither acknowledged nor refused yet."""
        with self._lock:
            return sum(self._pending.values())

    def oldest_pending_ms(self) -> int | None:
        """Event time of the oldest of them, about."""
        with self._lock:
            return min(self._pending) * _BUCKET_MS if self._pending else None

    def keep(self, item: Item, topic: str, partition: int, offset: int) -> None:
        """Kafka acknowledged *item*."""
        self.stored[topic].append((partition, offset, item.what, item.id, fingerprint(item.value)))

    def answered(self, item: Item, status: int, answer: dict[str, Any] | None) -> None:
        """The gateway or the ingest API gave a last word on *item*."""
        with self._lock:
            if item.what == "refused":
                if status != 422 and status != 400:
                    self.surprises.append(f"a broken request ({item.id}) got {status}")
                self.refused.add(item.id)
            elif status == 202:
                if item.what != "label":
                    self.accepted.add(item.id)
            elif status == 200 and answer is not None:
                self._given(item.id, answer)
            elif status == 409 and answer is not None and answer.get("error") == "already_in_log":
                self.in_log.add(item.id)
            else:
                self.surprises.append(f"{item.path} refused {item.what} {item.id} with {status}: {str(answer)[:200]}")

    def attempted(self, path: str, status: int) -> None:
        """An HTTP request ended with *status*; 0 where it got none."""
        with self._lock:
            self.attempts[path, status] += 1

    def _given(self, transaction_id: str, answer: dict[str, Any]) -> None:
        kept = {name: answer.get(name) for name in ("decision", "fraud_probability", "model_version")}
        first = self.answers.setdefault(transaction_id, kept)
        if first != kept:
            self.surprises.append(f"the gateway gave {transaction_id} two answers: {first} and {kept}")
        self.accepted.add(transaction_id)
