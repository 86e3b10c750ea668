"""``make fuzz N=1000000 SEED=1``: changed records through the stream's decoder. Each is a transaction or a dead letter,
nothing else."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec

from centinela.deadletters.record import dead_letter
from centinela.events import encode
from centinela.features.known_fields import KnownFields
from centinela.features.layout import BASE_LAYOUT, FeatureLayout
from centinela.kafka.port import Record
from centinela.times import EPOCH
from centinela_predictor.state.admission import SCHEMA_ONLY, AdmissionRules, admit
from tests.support.mutations import Mutator, corpus

NOW = datetime(2026, 11, 24, tzinfo=UTC)
BATCH = 250
REASONS = frozenset(
    {
        "empty",
        "too_large",
        "malformed_json",
        "invalid_field",
        "unsupported_version",
        "invalid_verdict",
        "time_in_future",
        "time_before_1970",
        "unknown_field",
        "no_rate",
    }
)
LAYOUTS = (BASE_LAYOUT, FeatureLayout(("v1", "v2", "v3")))
_ATTRIBUTES = frozenset({"v1", "v2", "v3"})
RULES = (
    SCHEMA_ONLY,
    AdmissionRules(KnownFields(_ATTRIBUTES, refuse=False)),
    AdmissionRules(KnownFields(_ATTRIBUTES, refuse=True)),
)


class Broken(AssertionError):
    """What the decoder gave is not allowed."""


def fuzz(count: int, seed: int, say: Callable[[str], None] = lambda _line: None) -> Counter[str]:
    """Put *count* changed records through ``admit`` in batches; how many became what.

    Raises:
        Broken: A record was lost, or something was let through that is no transaction.
        Exception: Whatever the decoder raised, with the seed and the number of the batch in the notes.
    """
    mutator, outcomes = Mutator(corpus(NOW - timedelta(days=1)), seed), Counter[str]()
    for first in range(0, count, BATCH):
        size = min(BATCH, count - first)
        values: list[bytes | None] = [value if value or n % 2 else None for n, value in enumerate(mutator.many(size))]
        records = [
            Record("transactions", n % 4, first + n, b"k", value, (), int(NOW.timestamp() * 1000) * (n % 3 > 0))
            for n, value in enumerate(values)
        ]
        try:
            _check(records, outcomes)
        except Exception as error:
            error.add_note(f"seed {seed}, records {first} to {first + size - 1}")
            raise
        if (first // BATCH) % 400 == 399:
            say(f"{first + size:,} of {count:,}")
    return outcomes


def _check(records: list[Record], outcomes: Counter[str]) -> None:
    admitted = admit(records, NOW, LAYOUTS[records[0].offset % len(LAYOUTS)], RULES[records[0].offset % len(RULES)])
    both = sorted([r.offset for r in admitted.records] + [letter.record.offset for letter in admitted.refused])
    if both != [r.offset for r in records]:
        raise Broken(
            f"{len(records)} records became {len(admitted.records)} transactions and {len(admitted.refused)} dead"
            " letters"
        )
    if not len(admitted.records) == len(admitted.events) == len(admitted.columns):
        raise Broken("records, events and columns are not of one length")
    for letter in admitted.refused:
        if letter.reason not in REASONS:
            raise Broken(f"unknown reason {letter.reason!r}")
        dead_letter(letter.record, letter.reason, letter.detail, at=NOW)
        outcomes[letter.reason] += 1
    for event in admitted.events:
        numbers = [event.amount, *(v for v in event.attributes.values() if v is not None)]
        if not (
            0 <= event.amount <= 1e9
            and all(map(math.isfinite, numbers))
            and 1 <= len(event.transaction_id) <= 128
            and EPOCH <= event.occurred_at <= NOW + timedelta(days=1, seconds=1)
            and event.version == 1
        ):
            raise Broken(f"let through: {event}")
        if msgspec.json.decode(encode(event), type=type(event)) != event:
            raise Broken(f"does not survive its own form: {event}")
        outcomes["transaction"] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    outcomes = fuzz(options.count, options.seed, lambda line: print(line, file=sys.stderr))
    for name, count in outcomes.most_common():
        print(f"{count:>10,}  {name}")
    print(
        f"{sum(outcomes.values()):>10,}  records in {time.monotonic() - started:.0f} s, seed {options.seed}: each a"
        " transaction or a dead letter"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
