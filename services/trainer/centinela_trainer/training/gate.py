"""Whether a challenger may replace the champion: pure, with a reason for every refusal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from centinela_trainer.params import GateParams
from centinela_trainer.training.evaluation import Floats

MIN_DISTINCT_SCORES = 10


@dataclass(frozen=True)
class Evidence:
    """What the gate looks at. Both models were scored on the very same mature transactions.

    ``champion_average_precision`` None: there is no champion, or none that can score these rows. ``champion_fault``:
    why the champion that serves could not be compared with, None where there is no such fault. ``share_better``: share
    of paired bootstrap samples in which the challenger is better, None without a champion. ``parity``: the served form
    agrees with the trained one. ``skew``: why served features cannot be trusted, None where they can.
    """

    frauds: int
    scores: Floats
    alert_rate: float
    average_precision: float
    champion_average_precision: float | None
    share_better: float | None
    parity: bool
    parity_detail: str = ""
    skew: str | None = None
    champion_fault: str | None = None


@dataclass(frozen=True)
class GateVerdict:
    """``reason``: one sentence for people; ``failures``: constant names of the checks that failed."""

    passed: bool
    reason: str
    failures: tuple[str, ...] = ()


def decide(evidence: Evidence, params: GateParams) -> GateVerdict:
    """Every check is made, so that a refusal names all that is wrong."""
    failures = {**_sanity(evidence, params), **_champion(evidence), **_quality(evidence, params)}
    if failures:
        return GateVerdict(False, "; ".join(failures.values()), tuple(failures))
    champion = evidence.champion_average_precision
    against = (
        f"the champion's {champion:.3f}"
        if champion is not None
        else f"at least {params.min_average_precision:.3f} without a champion"
    )
    return GateVerdict(True, f"average precision {evidence.average_precision:.3f} against {against}")


def _sanity(evidence: Evidence, params: GateParams) -> dict[str, str]:
    failures: dict[str, str] = {}
    scores = evidence.scores
    if not np.isfinite(scores).all() or scores.min() < 0 or scores.max() > 1:
        failures["scores_invalid"] = "scores are not all finite and within [0, 1]"
    elif len(np.unique(scores)) < min(MIN_DISTINCT_SCORES, len(scores)):
        failures["scores_constant"] = f"only {len(np.unique(scores))} distinct scores"
    if not params.min_alert_rate <= evidence.alert_rate <= params.max_alert_rate:
        failures["alert_rate"] = (
            f"alert rate {evidence.alert_rate:.4f} is outside "
            f"{params.min_alert_rate:.4f} to {params.max_alert_rate:.4f}"
        )
    if not evidence.parity:
        failures["parity"] = f"the served form differs from the trained model: {evidence.parity_detail}"
    if evidence.skew is not None:
        failures["skew"] = evidence.skew
    return failures


def _champion(evidence: Evidence) -> dict[str, str]:
    if evidence.champion_fault is None:
        return {}
    return {
        "champion_unusable": (
            f"the champion could not be compared with ({evidence.champion_fault}): promote or roll back to a version"
            " that loads (`centinela models`), or remove the alias champion in MLflow to begin without one"
        )
    }


def _quality(evidence: Evidence, params: GateParams) -> dict[str, str]:
    if evidence.frauds < params.min_frauds:
        return {"too_few_frauds": f"{evidence.frauds} frauds in the test days; at least {params.min_frauds} are needed"}
    challenger, champion = evidence.average_precision, evidence.champion_average_precision
    if champion is None:
        if challenger < params.min_average_precision:
            return {
                "below_minimum": (
                    f"average precision {challenger:.3f} is below the minimum {params.min_average_precision:.3f}"
                )
            }
        return {}
    failures: dict[str, str] = {}
    if not challenger >= champion + params.min_gain:
        failures["no_gain"] = (
            f"average precision {challenger:.3f} against the champion's {champion:.3f}: the gain must reach"
            f" {params.min_gain:.3f}"
        )
    if evidence.share_better is not None and not evidence.share_better >= params.confidence:
        failures["not_significant"] = (
            f"better than the champion in {evidence.share_better:.0%} of the bootstrap samples; "
            f"{params.confidence:.0%} are needed"
        )
    return failures
