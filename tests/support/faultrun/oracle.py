"""Holds what was read back against what was acknowledged. Shares no code with the product."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.support.faultrun.ledger import Ledger
from tests.support.faultrun.readback import Places, ReadBack, Transaction

_SHOWN = 5
_PROMISED = timedelta(days=2)


@dataclass
class Judgement:
    """What was checked, how often, and what was found wrong."""

    checked: dict[str, int] = field(default_factory=dict)
    violations: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        return not any(self.violations.values())

    def check(self, name: str, count: int, wrong: Iterable[str]) -> None:
        """Of *count* things checked under *name*, these are *wrong*."""
        self.checked[name] = self.checked.get(name, 0) + count
        self.violations.setdefault(name, []).extend(wrong)

    def attempt(self, name: str, judge: Callable[[], None]) -> None:
        """Run *judge*; that it fails is a violation too, and hinders no other."""
        try:
            judge()
        except Exception as error:
            self.check(f"judging {name}", 1, [f"{type(error).__name__}: {error}"[:2_000]])

    def summary(self) -> dict[str, object]:
        """For the report: counts, and the first of each kind of violation."""
        return {
            "clean": self.clean,
            "checked": self.checked,
            "violations": {
                name: {"count": len(found), "first": found[:_SHOWN]} for name, found in self.violations.items() if found
            },
            "notes": self.notes,
        }


def judge_log(found: ReadBack, ledger: Ledger, judgement: Judgement) -> dict[str, int]:
    """What was acknowledged stands in the log as it was sent; the row of the first sound record of each transaction
    id."""
    stored = ledger.stored["transactions"]
    judgement.check(
        "acknowledged by Kafka, in the log as sent",
        len(stored),
        (
            f"{what} {name} at {partition}/{offset}"
            for partition, offset, what, name, mark in stored
            if (row := found.row_at.get((partition, offset))) is None or found.fingerprints[row] != mark
        ),
    )
    labels, marks = ledger.stored["labels"], dict(zip(found.label_places, found.label_fingerprints, strict=True))
    judgement.check(
        "labels acknowledged by Kafka, in the log as sent",
        len(labels),
        (
            f"label of {name} at {partition}/{offset}"
            for partition, offset, _, name, mark in labels
            if marks.get((partition, offset)) != mark
        ),
    )
    everything = {transaction.transaction_id for transaction in found.transactions if transaction is not None}
    first: dict[str, int] = {}
    refused: set[str] = set()
    for row, (place, transaction) in enumerate(zip(found.log, found.transactions, strict=True)):
        if transaction is None or is_broken(transaction):
            continue
        if place in found.refused:
            refused.add(transaction.transaction_id)
        else:
            first.setdefault(transaction.transaction_id, row)
    judgement.check(
        "acknowledged by HTTP, in the log",
        len(ledger.accepted | ledger.in_log),
        sorted((ledger.accepted | ledger.in_log) - first.keys() - refused),
    )
    judgement.check("refused by HTTP, not in the log", len(ledger.refused), sorted(ledger.refused & everything))
    return first


def note_lateness(found: ReadBack, first: Mapping[str, int], judgement: Judgement) -> None:
    """Which transactions came later in their partition than windows are promised to be whole for. Nothing is excused by
    it: it tells why terminals' windows lack one."""
    newest: dict[int, datetime] = {}
    late = []
    for name, row in sorted(first.items(), key=lambda entry: entry[1]):
        transaction, partition = found.transactions[row], found.log.partitions[row]
        assert transaction is not None
        behind = newest.setdefault(partition, transaction.occurred_at) - transaction.occurred_at
        newest[partition] = max(newest[partition], transaction.occurred_at)
        if behind > _PROMISED:
            late.append(f"{name} at {partition}/{found.log.offsets[row]} by {behind / timedelta(days=1):.1f} days")
    judgement.notes["transactions over 2 days behind their partition"] = {"count": len(late), "first": late[:_SHOWN]}


def judge_verdicts(found: ReadBack, first: Mapping[str, int], judgement: Judgement) -> None:
    """One verdict each, on what the first record says, in the order of the log."""
    counts = Counter(verdict.transaction_id for verdict in found.verdicts)
    judgement.check("transactions with a verdict", len(first), (name for name in first if name not in counts))
    judgement.check("verdicts, one each", len(found.verdicts), (f"{name}: {n}" for name, n in counts.items() if n > 1))
    judgement.check("verdicts on what is in the log", len(counts), (name for name in counts if name not in first))
    different, unordered = [], []
    last: dict[int, int] = {}
    for verdict, partition in zip(found.verdicts, found.verdict_places.partitions, strict=True):
        row = first.get(verdict.transaction_id)
        if row is None:
            continue
        transaction = found.transactions[row]
        assert transaction is not None
        if any(
            getattr(verdict, name) != getattr(transaction, name)
            for name in ("occurred_at", "amount", "user_id", "terminal_id")
        ):
            different.append(verdict.transaction_id)
        if found.log.partitions[row] != partition or found.log.offsets[row] <= last.get(partition, -1):
            unordered.append(verdict.transaction_id)
        last[partition] = found.log.offsets[row]
    judgement.check("verdicts on what the first record of the id says", len(found.verdicts), different)
    judgement.check("verdicts in the order of the log", len(found.verdicts), unordered)
    for name, places in (("log", found.log), ("verdicts", found.verdict_places), ("labels", found.label_places)):
        judgement.check(
            "offsets rise within a partition", len(places), (f"{name} {place}" for place in falling(places))
        )


def falling(places: Places) -> list[tuple[int, int]]:
    """Places whose offset is not above the one before in its partition."""
    last: dict[int, int] = {}
    wrong = []
    for partition, offset in zip(places.partitions, places.offsets, strict=True):
        if offset <= last.get(partition, -1):
            wrong.append((partition, offset))
        last[partition] = offset
    return wrong


def judge_letters(found: ReadBack, ledger: Ledger, first: Mapping[str, int], judgement: Judgement) -> None:
    """One dead letter for each broken record and for each that says something else under a known id; none for anything
    else."""
    origins = Counter((int(headers["dlq.partition"]), int(headers["dlq.offset"])) for headers in found.letters)
    expected: dict[tuple[int, int], str] = {}
    for partition, offset, what, name, _ in ledger.stored["transactions"]:
        if what == "malformed" or (what == "conflict" and _is_second(found, first, name, partition, offset)):
            expected[partition, offset] = f"{what} {name}"
    for place in found.refused:
        expected[place] = f"refused {place}"
    judgement.check(
        "broken, conflicting, mistimed and misrouted records with a dead letter",
        len(expected),
        (name for place, name in expected.items() if place not in origins),
    )
    judgement.check(
        "dead letters, one each", sum(origins.values()), (f"{place}: {n}" for place, n in origins.items() if n > 1)
    )
    judgement.check(
        "dead letters of what is broken only",
        len(origins),
        (str(place) for place in origins if place not in expected and not _unpromised(found, first, place)),
    )


def judge_label_letters(found: ReadBack, judgement: Judgement) -> None:
    """A dead letter for each label whose time stamp in Kafka is in another unit, and for no other."""
    origins = {(int(headers["dlq.partition"]), int(headers["dlq.offset"])) for headers in found.label_letters}
    judgement.check(
        "mistimed labels with a dead letter", len(found.mistimed_labels), map(str, found.mistimed_labels - origins)
    )
    judgement.check("dead letters of mistimed labels only", len(origins), map(str, origins - found.mistimed_labels))


def is_broken(transaction: Transaction | None) -> bool:
    """Whether it was sent to be refused: its id says so."""
    return transaction is None or transaction.transaction_id.startswith("x")


def _is_second(found: ReadBack, first: Mapping[str, int], name: str, partition: int, offset: int) -> bool:
    row = first.get(name)
    return row is not None and (found.log.partitions[row], found.log.offsets[row]) != (partition, offset)


def _unpromised(found: ReadBack, first: Mapping[str, int], place: tuple[int, int]) -> bool:
    """Whether the record at *place* deserves its letter although Kafka never told its sender that it took it."""
    row = found.row_at.get(place)
    if row is None:
        return False
    transaction = found.transactions[row]
    if transaction is None or is_broken(transaction):
        return True
    original = found.transactions[first[transaction.transaction_id]]
    return original is not None and original.amount != transaction.amount


def judge_answers(found: ReadBack, ledger: Ledger, judgement: Judgement) -> None:
    """What the gateway answered is the verdict in the log."""
    by_id = {verdict.transaction_id: verdict for verdict in found.verdicts}

    def differs(name: str, answer: Mapping[str, Any]) -> bool:
        verdict = by_id.get(name)
        return (
            verdict is None
            or (verdict.decision, verdict.model_version) != (answer["decision"], answer["model_version"])
            or not math.isclose(verdict.score or 0.0, float(answer["fraud_probability"] or 0.0), abs_tol=1e-12)
        )

    judgement.check(
        "gateway answers that are the verdict",
        len(ledger.answers),
        (
            f"{name}: {answer}, in the log {by_id.get(name)}"
            for name, answer in ledger.answers.items()
            if differs(name, answer)
        ),
    )
    judgement.check("HTTP answers as they should be", sum(ledger.attempts.values()), ledger.surprises)


def judge_versions(
    found: ReadBack, promoted_at: Mapping[str, float], rejected: Iterable[str], judgement: Judgement
) -> None:
    """Only versions that were promoted and sound score, and none before its promotion; the registry's events count up
    without a gap."""
    sound = {version: at for version, at in promoted_at.items() if version not in set(rejected)}
    scored = [verdict for verdict in found.verdicts if verdict.model_version is not None]
    judgement.check(
        "versions that were promoted, not before that",
        len(scored),
        (
            f"{v.transaction_id}: {v.model_version}"
            for v in scored
            if (at := sound.get(v.model_version or "")) is None or v.scored_at.timestamp() < at - 0.5
        ),
    )
    judgement.notes["verdicts by version"] = dict(Counter(v.model_version for v in scored))
    told = {event["model_version"] for event in found.model_events if event.get("type") == "ModelPromoted"}
    loaded = [
        event for event in found.model_events if event.get("type") == "ModelLoaded" and event["alias"] == "champion"
    ]
    judgement.check(
        "loaded versions were promoted",
        len(loaded),
        (f"{e['replica']}: {e['model_version']}" for e in loaded if e["model_version"] not in sound),
    )
    judgement.notes["promotions still in model-events (compacted)"] = sorted(told, key=str)
    panes = Counter[str]()
    for version, count in found.panes:
        panes[version] += count
    counted = Counter(v.model_version for v in scored)
    judgement.check(
        "panes hold each scored transaction once",
        sum(counted.values()),
        (
            f"version {version}: {panes.get(version or '', 0)} in panes, {count} verdicts"
            for version, count in counted.items()
            if panes.get(version or "", 0) != count
        ),
    )


def judge_trainings(
    found: ReadBack, asked: Iterable[str], versions_by_request: Mapping[str, int], judgement: Judgement
) -> None:
    """Each training that was asked for is answered, and no request made two versions."""
    answers = Counter(event["request_id"] for event in found.model_events if event.get("type") == "TrainingCompleted")
    asked = list(asked)
    judgement.check("trainings answered", len(asked), (request for request in asked if request not in answers))
    judgement.check(
        "trainings with one version at most",
        len(asked),
        (f"{request}: {versions_by_request[request]}" for request in asked if versions_by_request.get(request, 0) > 1),
    )
    judgement.notes["trainings"] = {
        event["request_id"]: event["outcome"]
        for event in found.model_events
        if event.get("type") == "TrainingCompleted"
    }
