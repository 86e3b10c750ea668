"""The oracle finds what it is there to find, and the schedule is the seed's."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.faultrun.inject_log import growth_order
from tests.support.faultrun.ledger import Ledger, fingerprint
from tests.support.faultrun.oracle import (
    Judgement,
    judge_answers,
    judge_letters,
    judge_log,
    judge_verdicts,
    judge_versions,
    note_lateness,
)
from tests.support.faultrun.plan import SHAPES, schedule
from tests.support.faultrun.readback import Raw, ReadBack, Scored, Transaction, is_mistimed
from tests.support.faultrun.workload import Profile, Workload

AT = datetime(2024, 1, 1, tzinfo=UTC)


class World:
    """A log of three transactions and a broken record, each with its outcome, all acknowledged."""

    def __init__(self) -> None:
        self.found, self.ledger = ReadBack(), Ledger()
        for offset, name in enumerate(("a", "b", "c")):
            self.log(offset, name.encode(), Transaction(name, AT, 5.0, "u"))
            self.ledger.stored["transactions"].append((0, offset, "transaction", name, fingerprint(name.encode())))
            self.verdict(offset, name)
        self.log(3, b"?", None)
        self.ledger.stored["transactions"].append((0, 3, "malformed", "x1", fingerprint(b"?")))
        self.found.letters = [{"dlq.partition": b"0", "dlq.offset": b"3"}]
        self.ledger.accepted = {"b"}
        self.ledger.answers["b"] = {"decision": "approve", "fraud_probability": 0.25, "model_version": "1"}
        self.promoted, self.rejected = {"1": AT.timestamp()}, ["2"]

    def log(self, offset: int, value: bytes, transaction: Transaction | None) -> None:
        self.found.log.add(Raw(0, offset, None, value, {}))
        self.found.fingerprints.append(fingerprint(value))
        self.found.transactions.append(transaction)

    def verdict(self, offset: int, name: str, **more: object) -> None:
        self.found.verdict_places.add(Raw(0, offset, None, b"", {}))
        fields = {
            "transaction_id": name,
            "occurred_at": AT,
            "amount": 5.0,
            "decision": "approve",
            "origin": "stream",
            "features": b"",
            "scored_at": AT,
            "user_id": "u",
            "score": 0.25,
            "model_version": "1",
        }
        self.found.verdicts.append(Scored(**(fields | more)))  # type: ignore[arg-type]

    def judged(self) -> set[str]:
        """What is violated."""
        judgement = Judgement()
        self.found.panes = [("1", sum(v.model_version == "1" for v in self.found.verdicts))]
        first = judge_log(self.found, self.ledger, judgement)
        judge_verdicts(self.found, first, judgement)
        judge_letters(self.found, self.ledger, first, judgement)
        judge_answers(self.found, self.ledger, judgement)
        judge_versions(self.found, self.promoted, self.rejected, judgement)
        return {name for name, found in judgement.violations.items() if found}


def test_a_sound_log_is_clean() -> None:
    assert World().judged() == set()


def test_what_comes_over_two_days_behind_its_partition_is_named_and_no_violation() -> None:
    world, judgement = World(), Judgement()
    for offset, (name, days) in enumerate((("d", 12.0), ("e", 9.9), ("f", 10.1), ("d", 0.0)), 4):
        world.log(offset, name.encode(), Transaction(name, AT + timedelta(days=days), 5.0, "u"))
    note_lateness(world.found, judge_log(world.found, world.ledger, judgement), judgement)
    assert judgement.notes == {
        "transactions over 2 days behind their partition": {"count": 1, "first": ["e at 0/5 by 2.1 days"]}
    }
    assert judgement.clean


def _lose_a_record(world: World) -> None:
    world.ledger.stored["transactions"].append((0, 9, "transaction", "d", 1))


def _change_a_record(world: World) -> None:
    world.found.fingerprints[1] = 1


def _lose_an_accepted_one(world: World) -> None:
    world.ledger.accepted.add("e")


def _lose_a_verdict(world: World) -> None:
    del world.found.verdicts[2], world.found.verdict_places.partitions[2], world.found.verdict_places.offsets[2]


def _double_a_verdict(world: World) -> None:
    world.verdict(3, "c")


def _invent_a_verdict(world: World) -> None:
    world.verdict(3, "nobody")


def _change_a_verdict(world: World) -> None:
    world.found.verdicts[0].amount = 6.0


def _swap_verdicts(world: World) -> None:
    world.found.verdicts.reverse()


def _lose_a_letter(world: World) -> None:
    world.found.letters.clear()


def _double_a_letter(world: World) -> None:
    world.found.letters *= 2


def _letter_on_a_sound_one(world: World) -> None:
    world.found.letters.append({"dlq.partition": b"0", "dlq.offset": b"1"})


def _answer_otherwise(world: World) -> None:
    world.ledger.answers["b"]["fraud_probability"] = 0.5


def _score_by_a_rejected_version(world: World) -> None:
    world.promoted["2"] = AT.timestamp()
    world.found.verdicts[0].model_version = "2"


def _score_before_the_promotion(world: World) -> None:
    world.promoted["1"] += 60


@pytest.mark.parametrize(
    ("harm", "violated"),
    [
        (_lose_a_record, "acknowledged by Kafka, in the log as sent"),
        (_change_a_record, "acknowledged by Kafka, in the log as sent"),
        (_lose_an_accepted_one, "acknowledged by HTTP, in the log"),
        (_lose_a_verdict, "transactions with a verdict"),
        (_double_a_verdict, "verdicts, one each"),
        (_invent_a_verdict, "verdicts on what is in the log"),
        (_change_a_verdict, "verdicts on what the first record of the id says"),
        (_swap_verdicts, "verdicts in the order of the log"),
        (_lose_a_letter, "broken, conflicting, mistimed and misrouted records with a dead letter"),
        (_double_a_letter, "dead letters, one each"),
        (_letter_on_a_sound_one, "dead letters of what is broken only"),
        (_answer_otherwise, "gateway answers that are the verdict"),
        (_score_by_a_rejected_version, "versions that were promoted, not before that"),
        (_score_before_the_promotion, "versions that were promoted, not before that"),
    ],
)
def test_each_harm_is_found(harm: Callable[[World], None], violated: str) -> None:
    world = World()
    harm(world)
    assert violated in world.judged()


def _mistime_a_scored_one(world: World) -> None:
    world.found.mistimed.add((0, 1))


def _misroute(world: World) -> None:
    """What came to another partition than its key's before the topic grew has a verdict, and no letter."""
    world.found.misrouted.add((0, 2))


def _turn_a_well_routed_one_away(world: World) -> None:
    _lose_a_verdict(world)
    world.found.letters.append({"dlq.partition": b"0", "dlq.offset": b"2", "dlq.reason": b"wrong_partition"})


def _turn_a_misrouted_one_away(world: World) -> None:
    _misroute(world)
    _turn_a_well_routed_one_away(world)


def _refuse_a_mistimed_one(world: World) -> None:
    world.found.mistimed.add((0, 2))
    _lose_a_verdict(world)
    world.found.letters.append({"dlq.partition": b"0", "dlq.offset": b"2", "dlq.reason": b"time_in_future"})


@pytest.mark.parametrize("change", [_misroute, _turn_a_misrouted_one_away, _refuse_a_mistimed_one])
def test_what_is_mistimed_or_misrouted_has_one_outcome(change: Callable[[World], None]) -> None:
    world = World()
    change(world)
    assert world.judged() == set()


@pytest.mark.parametrize("harm", [_mistime_a_scored_one, _turn_a_well_routed_one_away])
def test_a_record_is_refused_for_its_time_stamp_or_its_partition_only_where_it_must_be(
    harm: Callable[[World], None],
) -> None:
    world = World()
    harm(world)
    assert world.judged() != set()


@pytest.mark.parametrize(
    ("timestamp", "mistimed"),
    [
        (AT.timestamp(), True),
        (AT.timestamp() * 1_000, False),
        (AT.timestamp() * 1_000_000, False),
        (AT.timestamp() * 1_000 - 86_400_000, False),
        (0, False),
    ],
)
def test_a_time_stamp_in_seconds_is_told_from_one_in_milliseconds(timestamp: float, mistimed: bool) -> None:
    assert is_mistimed(Raw(0, 0, None, b"", {}, int(timestamp)), AT) == mistimed


def test_a_topic_grows_after_those_that_must_be_at_least_as_wide_and_at_most_to_eight_partitions() -> None:
    counts = {"transactions": 4, "feature-panes": 4, "terminal-activity": 4, "labels": 4, "predictions": 8}
    order = growth_order(counts, random.Random(7))  # noqa: S311
    assert (order[:2], order[2:]) == (["terminal-activity", "feature-panes"], ["labels", "transactions"])


def test_a_seed_makes_the_same_faults_and_the_same_load_and_another_seed_others() -> None:
    def load(seed: int) -> list[object]:
        return list(itertools.islice(Workload(Profile(seed, per_day=500)).items(), 2_000))

    assert schedule(7, 60, 3) == schedule(7, 60, 3) != schedule(8, 60, 3)
    assert load(7) == load(7) != load(8)


def test_a_long_schedule_has_every_kind() -> None:
    assert {fault.kind for fault in schedule(7, 40, 3)} == {kind for kind, shape in SHAPES.items() if shape.weight}
