"""The demo says that the loop closed only where it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from centinela.events import (
    DriftReported,
    Event,
    ModelLoaded,
    ModelPromoted,
    PerformanceMeasured,
    RetrainRequested,
    TrainingCompleted,
)
from centinela_local.demo.story import Performance, Story
from centinela_local.demo.summary import LogCounts, SkewCounts, Summary, summarize

ATTACK = datetime(2025, 3, 1, tzinfo=UTC)
WALL = datetime(2026, 11, 24, 12, tzinfo=UTC)

State = Literal["insufficient", "stable", "warning", "alarm"]
TrainingOutcome = Literal["promoted", "challenger", "refused", "failed"]


def day(number: float) -> datetime:
    """Days after the attack started."""
    return ATTACK + timedelta(days=number)


def report(
    end: float,
    version: str,
    average_precision: float | None,
    state: State = "stable",
    frauds: int = 50,
) -> DriftReported:
    measured = PerformanceMeasured(
        start=day(end - 14), end=day(end - 7), count=100, frauds=frauds, average_precision=average_precision
    )
    return DriftReported(
        report_id=f"r{end}",
        model_name="FraudDetector",
        model_version=version,
        start=day(end - 1),
        end=day(end),
        count=500,
        alert_rate=0.01,
        state=state,
        findings=(),
        retrain="none",
        reason="because",
        performance=measured,
    )


def promoted(version: str, previous: str | None = None) -> ModelPromoted:
    return ModelPromoted(
        model_name="FraudDetector",
        alias="champion",
        model_version=version,
        previous_version=previous,
        sequence=int(version),
        observed_at=WALL,
    )


def loaded(version: str, replica: str) -> ModelLoaded:
    return ModelLoaded(
        model_name="FraudDetector",
        alias="champion",
        model_version=version,
        replica=replica,
        sequence=1,
        loaded_at=WALL,
        duration_s=0.1,
    )


def trained(request: str, version: str | None, outcome: TrainingOutcome = "promoted") -> TrainingCompleted:
    return TrainingCompleted(
        model_name="FraudDetector",
        request_id=request,
        outcome=outcome,
        reason="gate",
        completed_at=WALL,
        model_version=version,
    )


def asked(request: str, by: Literal["drift", "operator"]) -> RetrainRequested:
    return RetrainRequested(
        request_id=request, model_name="FraudDetector", requested_by=by, as_of=day(10), reason="AP fell"
    )


FIRST = [
    asked("first", "operator"),
    trained("first", "1"),
    promoted("1"),
    loaded("1", "gateway-0"),
    loaded("1", "stream-0"),
]
FALL = [report(5, "1", 0.76), report(6, "1", 0.74), report(12, "1", 0.5), report(13, "1", 0.4, "alarm")]
RETRAIN = [asked("r", "drift"), trained("r", "2"), promoted("2", "1")]
SWAP = [loaded("2", "gateway-0"), loaded("2", "stream-0")]
RECOVERY = [report(25, "2", 0.6), report(26, "2", 0.75)]


def told(*events: Event) -> Story:
    story = Story(ATTACK)
    for event in events:
        story.observe(event, WALL, day(11))
    return story


LOG = LogCounts(transactions=100, duplicates=0, verdicts=99, dead_letters=1, missing=0, repeated=0, reconciled=True)
EQUAL = SkewCounts(judged=900, mismatches=0)


def summary(
    story: Story, log: LogCounts = LOG, requests: int = 50, failed_requests: int = 0, skew: SkewCounts = EQUAL
) -> Summary:
    return summarize(story, log, skew, requests=requests, failed_requests=failed_requests, seconds=200.0)


def test_the_whole_story_closes_the_loop() -> None:
    story = told(*FIRST, *FALL, *RETRAIN, *SWAP, *RECOVERY)
    assert story.closed
    assert story.performance == Performance(before=0.75, during=0.4, after=0.75)
    result = summary(story)
    assert (result.closed, result.retrains, result.swaps) == (True, 1, 1)


@pytest.mark.parametrize(
    ("events", "shortfall"),
    [
        ([], "no first champion"),
        ([*FIRST, *FALL], "drift requested no retrain"),
        (
            [*FIRST, *FALL, asked("x", "operator"), trained("x", "2"), promoted("2", "1"), *SWAP, *RECOVERY],
            "drift requested no retrain",
        ),
        ([*FIRST, *FALL, asked("r", "drift"), trained("r", None, "refused")], "no new version was promoted: refused"),
        ([*FIRST, *FALL, *RETRAIN, loaded("2", "gateway-0"), *RECOVERY], "stream-0 does not serve version 2"),
        ([*FIRST, *FALL, *RETRAIN, *SWAP], "did not recover: 0.75 before, 0.40 during, not measured after"),
        ([*FIRST, *FALL, *RETRAIN, *SWAP, report(25, "2", 0.5)], "did not recover"),
        ([*FIRST, *FALL, *RETRAIN, *SWAP, report(25, "2", 0.9, frauds=3)], "not measured after"),
    ],
)
def test_what_is_missing_is_named(events: list[Event], shortfall: str) -> None:
    story = told(*events)
    result = summary(story)
    assert not story.closed
    assert not result.closed
    assert any(shortfall in line for line in result.shortfalls)


@pytest.mark.parametrize(
    ("log", "requests", "failed", "shortfall"),
    [
        (replace(LOG, missing=1, reconciled=False), 50, 0, "does not reconcile"),
        (LOG, 50, 1, "1 of 50 requests"),
        (LOG, 0, 0, "no request was made"),
    ],
)
def test_counts_that_do_not_add_up_keep_the_loop_open(
    log: LogCounts, requests: int, failed: int, shortfall: str
) -> None:
    [line] = summary(told(*FIRST, *FALL, *RETRAIN, *SWAP, *RECOVERY), log, requests, failed).shortfalls
    assert shortfall in line


def test_features_that_differ_from_the_batch_form_keep_the_loop_open_and_an_unmade_check_is_said() -> None:
    story = told(*FIRST, *FALL, *RETRAIN, *SWAP, *RECOVERY)
    [line] = summary(story, skew=SkewCounts(900, 3)).shortfalls
    assert "3 served values differ" in line
    assert ("skew", "0 mismatches in 900 served vectors") in summary(story).rows()
    assert ("skew", "not checked") in summary(story, skew=SkewCounts()).rows()


def test_a_second_request_may_succeed_where_the_first_was_refused() -> None:
    again = [
        asked("r1", "drift"),
        trained("r1", None, "refused"),
        asked("r2", "drift"),
        trained("r2", "3"),
        promoted("3", "1"),
    ]
    story = told(*FIRST, *FALL, *again, loaded("3", "gateway-0"), loaded("3", "stream-0"), report(30, "3", 0.8))
    assert (story.new_version, story.closed) == ("3", True)


@pytest.mark.parametrize(
    ("before", "during", "after", "recovered"),
    [
        (0.8, 0.5, 0.71, True),
        (0.8, 0.5, 0.69, False),
        (0.8, 0.8, 0.8, False),
        (None, 0.5, 0.8, False),
        (0.8, 0.5, None, False),
    ],
)
def test_recovery_is_two_thirds_of_what_was_lost(
    before: float | None, during: float | None, after: float | None, recovered: bool
) -> None:
    assert Performance(before, during, after).recovered is recovered


@pytest.mark.parametrize(
    ("events", "answering", "hopeless_after"),
    [
        ([*FIRST, *FALL], False, 35),
        ([*FIRST, *FALL, asked("r", "drift")], True, 100),
        ([*FIRST, *FALL, asked("r", "drift"), trained("r", None, "refused")], False, 100),
        ([*FIRST, *FALL, *RETRAIN], True, 100),
        ([*FIRST, *FALL, *RETRAIN, *SWAP], False, 41),
        ([*FIRST, *FALL, *RETRAIN, *SWAP, *RECOVERY], False, None),
    ],
)
def test_the_next_step_is_waited_for_but_not_for_ever(
    events: list[Event], answering: bool, hopeless_after: float | None
) -> None:
    story = told(*events)
    assert story.answering is answering
    if hopeless_after is None:
        assert not story.hopeless(day(1_000))
    else:
        assert not story.hopeless(day(hopeless_after))
        assert story.hopeless(day(hopeless_after + 0.1))


def test_each_turn_is_told_once_in_order_with_both_times() -> None:
    story = Story(ATTACK)
    story.reach(WALL, day(-1))
    story.reach(WALL, day(0.01))
    story.reach(WALL, day(0.02))
    for event in (*FIRST, *FALL, *RETRAIN, *SWAP):
        story.observe(event, WALL, day(11))
    assert [moment.what for moment in story.moments] == [
        "attack starts",
        "retrain requested",
        "training promoted",
        "champion promoted",
        "model loaded",
        "model loaded",
        "drift alarm",
        "retrain requested",
        "training promoted",
        "champion promoted",
        "model loaded",
        "model loaded",
    ]
    assert all(moment.wall == WALL and moment.event_time is not None for moment in story.moments)


def test_the_table_holds_what_was_promised() -> None:
    rows: Callable[[str], str] = dict(summary(told(*FIRST, *FALL, *RETRAIN, *SWAP, *RECOVERY)).rows()).__getitem__
    assert rows("transactions in") == "100"
    assert rows("average precision before / during / after") == "0.75 / 0.40 / 0.75"
    assert rows("failed requests") == "0"
