"""Publication: one version and one promotion, wherever a crash interrupts it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

import msgspec
import pytest

from centinela.events import TrainingCompleted, encode
from centinela.model.registry import CHALLENGER, CHAMPION, Registry
from centinela.settings import Settings
from centinela.testing.clock import FixedClock
from centinela.testing.registry_store import FakeStore
from centinela_trainer.judgement import Judgement, TrainingRun
from centinela_trainer.mlflow_tracking import Tracking
from centinela_trainer.retraining.publication import Publication

NOW, NAME = datetime(2026, 3, 1, tzinfo=UTC), "FraudDetector"
RUN = TrainingRun("run-1", NAME, "request-1")
PASSED = Judgement(
    outcome="challenger",
    reason="better",
    dataset_digest="abc",
    average_precision=0.8,
    champion_average_precision=0.7,
    duration_s=12.5,
)


class Crash(Exception):
    """The process dies here."""


class FakeRuns:
    """One run in memory: its tags, its version, its answer. Dies once, just before the call named *dies_at*."""

    def __init__(self, store: FakeStore, dies_at: str = "", champion: str = "none") -> None:
        self.store = store
        self.dies_at = dies_at
        self.version: str | None = None
        self.completed: list[TrainingCompleted] = []
        self.run_tags = {
            "centinela.model_uri": "models:/m-1",
            "code_commit": "c0ffee",
            "model_kind": "hgb",
            "champion_version": champion,
        }

    def crash(self, call: str) -> None:
        if self.dies_at == call:
            self.dies_at = ""
            raise Crash(call)

    def tags(self, _run_id: str) -> dict[str, str]:
        return self.run_tags

    def register(self, _run_id: str, _uri: str, tags: Mapping[str, str]) -> str:
        self.crash("register")
        if self.version is None:
            self.version = self.store.add_version(NAME, NOW, bundle={}, tags=dict(tags))
        return self.version

    def complete(self, _run_id: str, completed: TrainingCompleted) -> None:
        self.crash("complete")
        self.completed.append(completed)


class DyingRegistry(Registry):
    """A registry whose calls may be the last of the process."""

    def __init__(self, runs: FakeRuns) -> None:
        super().__init__(Settings(model_name=NAME), store=runs.store, clock=FixedClock(NOW))
        self.runs = runs

    def set_alias(self, alias: str, version: str) -> None:
        self.runs.crash("set_alias")
        super().set_alias(alias, version)

    def promote(self, version: str, expect: str | None = None, *, reason: str = "") -> str | None:
        self.runs.crash("promote")
        return super().promote(version, expect, reason=reason)


def publication(runs: FakeRuns, *, auto_promote: bool = True) -> Publication:
    return Publication(cast("Tracking", runs), DyingRegistry(runs), FixedClock(NOW), auto_promote=auto_promote)


@pytest.mark.parametrize("dies_at", ["register", "set_alias", "promote", "complete"])
def test_after_a_crash_the_same_call_finishes_what_is_left(dies_at: str) -> None:
    runs = FakeRuns(FakeStore(), dies_at)
    with pytest.raises(Crash, match=dies_at):
        publication(runs).publish(RUN, PASSED)
    answer = publication(runs).publish(RUN, PASSED)
    assert runs.completed == [answer]
    assert (answer.outcome, answer.model_version, answer.reason) == ("promoted", "1", "better")
    registry = DyingRegistry(runs)
    assert [version.version for version in registry.versions()] == ["1"]
    assert registry.aliases() == {CHAMPION: "1"}
    assert [entry.version for entry in registry.history()] == ["1"]


def test_the_event_says_what_was_judged() -> None:
    answer = publication(FakeRuns(FakeStore())).publish(RUN, PASSED)
    assert answer == TrainingCompleted(
        model_name=NAME,
        request_id="request-1",
        outcome="promoted",
        reason="better",
        completed_at=NOW,
        run_id="run-1",
        model_version="1",
        average_precision=0.8,
        champion_average_precision=0.7,
        dataset_digest="abc",
        duration_s=12.5,
    )


def test_a_refused_candidate_is_not_registered() -> None:
    runs = FakeRuns(FakeStore())
    answer = publication(runs).publish(RUN, Judgement(outcome="refused", reason="no gain", duration_s=1.0))
    assert (answer.outcome, answer.reason, answer.model_version) == ("refused", "no gain", None)
    assert (runs.completed, runs.version) == ([answer], None)


def test_without_auto_promote_a_model_that_passed_stays_the_challenger() -> None:
    runs = FakeRuns(FakeStore())
    answer = publication(runs, auto_promote=False).publish(RUN, PASSED)
    assert (answer.outcome, answer.reason) == ("challenger", "better; waits to be promoted")
    assert DyingRegistry(runs).aliases() == {CHALLENGER: "1"}


def test_a_champion_that_changed_since_the_comparison_is_not_replaced() -> None:
    runs = FakeRuns(FakeStore(), champion="7")
    answer = publication(runs).publish(RUN, PASSED)
    assert (answer.outcome, answer.model_version) == ("challenger", "1")
    assert answer.reason == "better; not promoted: the champion of FraudDetector is none, not 7"


def test_a_judgement_that_an_earlier_release_kept_as_an_event_is_still_read() -> None:
    draft = TrainingCompleted(
        model_name=NAME,
        request_id="request-1",
        outcome="challenger",
        reason="better",
        completed_at=NOW,
        run_id="run-1",
        average_precision=0.8,
        champion_average_precision=0.7,
        dataset_digest="abc",
        duration_s=12.5,
    )
    assert msgspec.json.decode(encode(draft), type=Judgement) == PASSED
