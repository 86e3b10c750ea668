"""The loop by itself: a new fraud pattern, drift, retraining, promotion and swap, under load and with no failed
request.

One ``centinela demo`` plays it; what it leaves running is then swapped by hand, and loses its registry.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import httpx
import pytest
from mlflow import MlflowClient  # noqa: TID251 - promotes as somebody does who has nothing but MLflow

from centinela_local.readiness.checks import ask
from centinela_local.testing.temporary_stack import TemporaryStack, within
from tests.support.committed_log import Log

pytestmark = [pytest.mark.timeout(1_800)]

MODEL, ALIAS = "FraudDetector", "champion"
PREDICTORS = ("gateway", "stream")
SWAP_DEADLINE_S = 30.0


class Played(NamedTuple):
    """A demo that was played and left running."""

    stack: TemporaryStack
    output: str
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def played(stack_in: Callable[..., AbstractContextManager[TemporaryStack]]) -> Iterator[Played]:
    with stack_in("demo", demo=True) as stack:
        output = stack.run("demo", "--keep", "--day-seconds", "1", timeout_s=1_200)
        yield Played(stack, output, json.loads((stack.results / "summary.json").read_text()))


@pytest.fixture(scope="module")
def stack(played: Played) -> TemporaryStack:
    return played.stack


def served(stack: TemporaryStack) -> set[str]:
    """The champion's version at each predictor."""
    answers = [ask(f"{stack.url(name)}/model") for name in PREDICTORS]
    return {answer.body["champion"]["version"] for answer in answers if answer is not None}


def open_trainings(log: Log) -> set[str]:
    """Retrain requests without an answer. An answer that a killed or rebalanced trainer gives again counts once."""
    requested = {event["request_id"] for event in log.events("retrain-requests")}
    answered = {event["request_id"] for event in log.events("model-events") if event["type"] == "TrainingCompleted"}
    return requested - answered


def test_the_loop_closes_and_every_transaction_has_one_verdict(
    played: Played, record_property: Callable[[str, object], None]
) -> None:
    summary = played.summary
    record_property("seconds", summary["seconds"])
    assert summary["closed"], played.output
    assert summary["retrains"] >= 1
    assert summary["swaps"] >= 1
    performance = summary["performance"]
    assert performance["during"] < performance["before"]
    assert performance["during"] < performance["after"]

    log = summary["log"]
    assert (log["dead_letters"], log["missing"], log["repeated"]) == (0, 0, 0)
    assert log["transactions"] == log["verdicts"] > 100_000
    assert (played.stack.results / "loop.png").read_bytes().startswith(b"\x89PNG")


def test_no_request_failed_while_the_model_was_swapped(played: Played) -> None:
    assert played.summary["requests"] > 0
    assert played.summary["failed_requests"] == 0


def test_a_version_promoted_in_mlflow_answers_under_load_and_no_request_fails(
    stack: TemporaryStack,
    open_log: Callable[..., Log],
    load: Callable[..., AbstractContextManager[Any]],
    record_property: Callable[[str, object], None],
) -> None:
    log = open_log(stack, tail=100)
    assert within(300, lambda: not open_trainings(log)), "a training that ends later would promote its own version"
    log.read()
    registry = MlflowClient(stack.url("mlflow"))
    before = registry.get_model_version_by_alias(MODEL, ALIAS).version
    other = next(v.version for v in registry.search_model_versions(f"name='{MODEL}'") if v.version != before)

    with load(stack.url("gateway"), "swap", log.newest()) as running:
        running.await_answers(lambda answers: len(answers) >= 100, 60)
        promoted_after, promoted_at = len(running.answers), time.monotonic()
        registry.set_registered_model_alias(MODEL, ALIAS, other)
        running.await_answers(lambda answers: answers[-1].model_version == other, SWAP_DEADLINE_S)
        record_property("seconds_from_alias_to_first_answer", round(time.monotonic() - promoted_at, 2))
        swapped_after = len(running.answers)
        running.await_answers(lambda answers: len(answers) >= swapped_after + 100, 60)

    assert running.failures == []
    versions = [answer.model_version for answer in running.answers]
    assert set(versions[:promoted_after]) == {before}
    assert set(versions) == {before, other}
    assert set(versions[swapped_after + running.at_once :]) == {other}

    answered = {answer.transaction_id: answer.model_version for answer in running.answers}
    log.read_until(lambda: len([v for v in log.verdicts if v.transaction_id in answered]) >= len(answered))
    verdicts = [(v.transaction_id, v.model_version) for v in log.verdicts if v.transaction_id in answered]
    assert sorted(verdicts) == sorted(answered.items())
    assert within(SWAP_DEADLINE_S, lambda: served(stack) == {other})


def test_predictors_restarted_without_mlflow_serve_their_current_model_and_say_so(stack: TemporaryStack) -> None:
    current = (stack.data_dir / "models" / "current").readlink().name
    stack.supervisor.stop("mlflow")
    try:
        for name in PREDICTORS:
            stack.kill(name)
        stack.await_ready(*PREDICTORS)

        assert ask(f"{stack.url('mlflow')}/health") is None
        assert served(stack) == {current}
        response = httpx.post(f"{stack.url('gateway')}/predict", json={"amount": 100.5}, timeout=20)
        assert (response.status_code, response.json()["model_version"]) == (200, current)
        for name in PREDICTORS:
            lines = [line for line in stack.log(name).splitlines() if '"model.started_from_disk"' in line]
            assert f'"model_version": "{current}"' in lines[-1]
    finally:
        stack.supervisor.start("mlflow")
    stack.await_ready("registry-watcher")
