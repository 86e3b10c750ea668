"""One scoring path: decisions, variants, reasons, and swaps that never split a batch."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from centinela.errors import DependencyUnavailable
from centinela.events import Verdict
from centinela.features.layout import FeatureLayout
from centinela_predictor.models.explanations import Explainer
from centinela_predictor.models.routing import Router
from centinela_predictor.models.scoring import NOT_A_NUMBER, ScoredBatch, ScoringCore
from centinela_predictor.models.slot import ModelSlot
from tests.support.served_models import FakeScorer, served

LAYOUT = FeatureLayout(("v1",))
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def rows(*amounts: float) -> NDArray[np.float64]:
    matrix = np.full((len(amounts), len(LAYOUT.names)), np.nan)
    matrix[:, LAYOUT.names.index("amount")] = amounts
    return matrix


def verdicts(batch: ScoredBatch) -> list[Verdict]:
    return batch.verdicts(Verdict, "stream", NOW)


def core(slot: ModelSlot, share: float = 0.0) -> ScoringCore:
    return ScoringCore(slot, Router("salt", share))


@pytest.fixture
def slot() -> ModelSlot:
    slot = ModelSlot()
    slot.swap("champion", served("1"))
    return slot


def test_the_bundles_thresholds_decide(slot: ModelSlot) -> None:
    batch = core(slot).score(rows(10, 499, 500, 799, 800, 999), LAYOUT, list("abcdef"))

    given = verdicts(batch)
    assert [v.decision for v in given] == ["approve", "approve", "review", "review", "decline", "decline"]
    assert [v.is_fraud for v in given] == batch.is_fraud.tolist() == [False, False, False, False, True, True]
    assert [v.threshold for v in given] == [0.8] * 6
    assert [v.model_version for v in given] == ["1"] * 6
    assert [v.variant for v in given] == ["champion"] * 6
    assert [v.score for v in given] == batch.scores.tolist()
    np.testing.assert_allclose(batch.scores, [0.01, 0.499, 0.5, 0.799, 0.8, 0.999])


def test_only_flagged_rows_bear_reasons(slot: ModelSlot) -> None:
    batch = core(slot).score(rows(200, 912), LAYOUT, ["a", "b"])
    assert [v.reasons for v in verdicts(batch)] == [(), ("amount=912.00 above 90% of reference",)]


def test_scores_stay_within_zero_and_one(slot: ModelSlot) -> None:
    slot.swap("champion", served("1", FakeScorer(lambda amounts: amounts)))
    assert core(slot).score(rows(0, 1.0000001, 7), LAYOUT, list("abc")).scores.tolist() == [0.0, 1.0, 1.0]


def test_a_score_that_is_no_number_goes_to_a_person(slot: ModelSlot) -> None:
    slot.swap("champion", served("1", FakeScorer(lambda amounts: np.where(amounts > 5, np.nan, 0.0))))
    batch = core(slot).score(rows(1, 9), LAYOUT, ["a", "b"])
    assert [v.decision for v in verdicts(batch)] == ["approve", "review"]
    assert batch.scores.tolist() == [0.0, 0.5]
    assert [v.reasons for v in verdicts(batch)] == [(), (NOT_A_NUMBER,)]


def test_without_a_champion_nothing_is_scored() -> None:
    empty = core(ModelSlot())
    assert not empty.ready
    with pytest.raises(DependencyUnavailable):
        empty.score(rows(1), LAYOUT, ["a"])


def test_an_empty_batch_is_no_work(slot: ModelSlot) -> None:
    batch = core(slot).score(rows(), LAYOUT, [])
    assert (batch.scores.tolist(), verdicts(batch), batch.shares) == ([], [], [])


def test_the_challenger_scores_its_share_and_the_verdict_says_so(slot: ModelSlot) -> None:
    challenger = FakeScorer(lambda amounts: np.ones_like(amounts), threshold=0.9)
    slot.swap("challenger", served("2", challenger))
    keys = [f"u-{n}" for n in range(400)]
    batch = core(slot, share=0.25).score(rows(*[100.0] * 400), LAYOUT, keys)

    to_challenger = Router("salt", 0.25).goes_to_challenger(keys).tolist()
    assert 0 < sum(to_challenger) < 400
    given = verdicts(batch)
    assert [v.variant == "challenger" for v in given] == to_challenger
    assert [v.model_version == "2" for v in given] == to_challenger
    assert [v.is_fraud for v in given] == batch.is_fraud.tolist() == to_challenger
    assert [v.threshold == 0.9 for v in given] == to_challenger
    assert challenger.rows == sum(to_challenger)
    assert [(share.variant, share.model.version, len(share.rows)) for share in batch.shares] == [
        ("champion", "1", 400 - sum(to_challenger)),
        ("challenger", "2", sum(to_challenger)),
    ]


def test_the_champion_serves_all_while_no_challenger_is_loaded(slot: ModelSlot) -> None:
    batch = core(slot, share=1.0).score(rows(1, 2), LAYOUT, ["a", "b"])
    assert [v.variant for v in verdicts(batch)] == ["champion", "champion"]


def test_a_swap_hands_back_what_served_before(slot: ModelSlot) -> None:
    first = slot.pair.champion
    assert slot.swap("champion", served("2")) is first
    assert slot.swap("challenger", served("3")) is None
    assert slot.swap("challenger", None) is not None
    assert (slot.pair.champion is not None, slot.pair.challenger) == (True, None)


def test_readers_see_whole_pairs_while_writers_swap(slot: ModelSlot) -> None:
    """Both aliases are written concurrently; no write may get lost, and a batch has one champion version."""
    stop = threading.Event()
    mixed: list[set[str | None]] = []

    def read() -> None:
        scoring = core(slot)
        while not stop.is_set():
            batch = scoring.score(rows(1, 2, 3, 4), LAYOUT, list("abcd"))
            versions = {v.model_version for v in verdicts(batch)}
            if len(versions) != 1:
                mixed.append(versions)

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [
        threading.Thread(target=lambda a=alias: [slot.swap(a, served(str(n))) for n in range(300)])
        for alias in ("champion", "challenger")
    ]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()

    assert mixed == []
    assert [model and model.version for model in (slot.pair.champion, slot.pair.challenger)] == ["299", "299"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"a": 5.0}, ()),
        ({"a": float("nan")}, ()),
        ({"a": 9.5}, ("a=9.50 above 75% of reference",)),
        ({"a": 0.5}, ("a=0.50 below 75% of reference",)),
        ({"a": 12.0, "b": 40.0}, ("b=40.00 above 75% of reference", "a=12.00 above 75% of reference")),
        (
            {"a": 99.0, "b": 99.0, "c": 99.0, "d": 99.0},
            ("a=99.00 above 75% of reference", "b=99.00 above 75% of reference", "c=99.00 above 75% of reference"),
        ),
    ],
)
def test_reasons_name_what_lies_outside_the_reference_most_extreme_first(
    values: dict[str, float], expected: tuple[str, ...]
) -> None:
    counts = [25, 25, 25, 25, 7]
    explainer = Explainer([*"abcd", "constant"], [[1.0, 5.0, 9.0]] * 4 + [[]], [counts] * 4 + [[100, 7]])
    assert explainer.explain(np.array(list(values.values())), list(values)) == expected


def test_a_flag_that_is_rare_in_the_reference_is_a_reason_and_the_usual_one_is_none() -> None:
    just_above_zero = float(np.nextafter(0.0, 1.0))
    explainer = Explainer(["is_night"], [[just_above_zero]], [[95, 5, 0, 0, 0]])
    assert explainer.explain(np.array([1.0]), ["is_night"]) == ("is_night=1.00 above 95% of reference",)
    assert explainer.explain(np.array([0.0]), ["is_night"]) == ()
