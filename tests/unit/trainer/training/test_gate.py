"""The gate as a table: one fault, one named failure."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from centinela_trainer.params import GateParams
from centinela_trainer.training.gate import Evidence, decide

PARAMS = GateParams(
    min_average_precision=0.4, min_gain=0.05, confidence=0.9, min_frauds=10, min_alert_rate=0.001, max_alert_rate=0.05
)
GOOD = Evidence(
    frauds=50,
    scores=np.linspace(0, 1, 500),
    alert_rate=0.01,
    average_precision=0.70,
    champion_average_precision=0.50,
    share_better=0.99,
    parity=True,
)


def test_a_better_challenger_passes_and_the_reason_has_both_figures() -> None:
    verdict = decide(GOOD, PARAMS)
    assert verdict.passed
    assert "0.700" in verdict.reason
    assert "0.500" in verdict.reason


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        ({"average_precision": 0.54}, "no_gain"),
        ({"average_precision": float("nan")}, "no_gain"),
        ({"share_better": 0.6}, "not_significant"),
        ({"frauds": 9}, "too_few_frauds"),
        ({"scores": np.full(500, 0.3)}, "scores_constant"),
        ({"scores": np.append(np.linspace(0, 1, 499), np.nan)}, "scores_invalid"),
        ({"scores": np.linspace(0, 1.2, 500)}, "scores_invalid"),
        ({"alert_rate": 0.0}, "alert_rate"),
        ({"alert_rate": 0.3}, "alert_rate"),
        ({"parity": False, "parity_detail": "off by 0.2"}, "parity"),
        ({"skew": "served user_count_1d differs from the batch form in 3.00% of 900 sampled rows"}, "skew"),
        ({"champion_average_precision": None, "share_better": None, "average_precision": 0.39}, "below_minimum"),
        (
            {"champion_average_precision": None, "share_better": None, "champion_fault": "version 3: missing_file"},
            "champion_unusable",
        ),
    ],
)
def test_each_fault_refuses_with_its_name(change: dict[str, Any], failure: str) -> None:
    verdict = decide(dataclasses.replace(GOOD, **change), PARAMS)
    assert not verdict.passed
    assert verdict.failures == (failure,)
    assert verdict.reason


@pytest.mark.parametrize(
    "change",
    [
        {"average_precision": 0.55},
        {"champion_average_precision": None, "share_better": None, "average_precision": 0.4},
        {"frauds": 10},
        {"alert_rate": 0.05},
    ],
)
def test_what_just_reaches_a_limit_passes(change: dict[str, Any]) -> None:
    assert decide(dataclasses.replace(GOOD, **change), PARAMS).passed


def test_a_refusal_names_all_that_is_wrong() -> None:
    verdict = decide(dataclasses.replace(GOOD, alert_rate=0.3, average_precision=0.2, share_better=0.1), PARAMS)
    assert verdict.failures == ("alert_rate", "no_gain", "not_significant")
