"""Refunds and reversals: one verdict each, by no model, and in nobody's windows."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from centinela.events import AttachedVerdict, Kind, LabelReported
from centinela.features.layout import pack_rows, unpack_rows
from centinela.model.panes import read_pane
from centinela_predictor.state.admission import verdict_fault
from centinela_predictor.state.terminal_activity import unpack_block
from tests.support.predictor_world import LAYOUT, NOW, START, World, transaction

HOUR = timedelta(hours=1)
KINDS: tuple[Kind, ...] = ("refund", "reversal")


def features(world: World, transaction_id: str) -> dict[str, float]:
    [row] = unpack_rows([world.verdicts()[transaction_id].features], len(LAYOUT.names))
    return dict(zip(LAYOUT.names, row.tolist(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_it_gets_one_verdict_of_no_model_and_leaves_the_windows_of_purchases_alone(tmp_path: Path, kind: Kind) -> None:
    world = World(tmp_path, partitions=1)
    back = transaction(2, at=START + HOUR, terminal="m1", amount=900.0, kind=kind, attributes={"v1": 0.5})
    world.send(
        transaction(1, terminal="m1", amount=10.0),
        back,
        back,
        transaction(3, at=START + 2 * HOUR, terminal="m1", amount=20.0),
    )

    world.stream().run_until_verdicts(3)

    verdict = world.verdicts()["t00002"]
    assert (verdict.kind, verdict.decision, verdict.is_fraud, verdict.score) == (kind, "approve", False, None)
    assert (verdict.variant, verdict.model_version, verdict.threshold, verdict.origin) == ("none", None, None, "stream")
    assert verdict.reasons == (f"{kind}: not scored",)
    own = features(world, "t00002")
    assert (own["amount"], own["v1"]) == (900.0, 0.5)
    assert all(np.isnan(own[name]) for name in LAYOUT.names if name.startswith(("user_", "terminal_")))
    after = features(world, "t00003")
    assert (after["user_count_30d"], after["user_mean_30d"], after["user_max_30d"]) == (2, 15.0, 20.0)
    assert after["user_seconds_since_last"] == 7_200
    blocks = [unpack_block(record.value or b"") for record in world.broker.records("terminal-activity")]
    assert sum(len(block.ids) for block in blocks) == 2
    panes = [read_pane(pane) for pane in world.panes()]
    assert sum(len(pane.rows) for pane in panes) == 2
    assert world.dead() == []


def test_it_waits_for_no_model(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=1, model=None)
    world.send(transaction(1, kind="refund"), transaction(2))

    process = world.stream()
    process.run_until_verdicts(1)

    assert list(world.verdicts()) == ["t00001"]
    assert world.panes() == []


def test_the_purchase_under_the_id_of_a_refund_is_a_conflict(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.send(transaction(1, kind="refund"), transaction(1), transaction(2, user="u2"))

    world.stream().run_until_verdicts(2)

    assert [reason for reason, _ in world.dead()] == ["conflict"]
    assert world.verdicts()["t00001"].kind == "refund"


def test_a_label_on_it_is_in_no_terminals_risk(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=1)
    refunded = transaction(1, terminal="m1", kind="refund")
    world.report(
        LabelReported(transaction_id="t00001", is_fraud=True, occurred_at=START, reported_at=START + HOUR, user_id="u1")
    )
    world.send(refunded, transaction(2, terminal="m1", at=START + HOUR))
    world.send(transaction(3, terminal="m1", at=START + timedelta(days=8)))

    world.stream().run_until_verdicts(3)

    later = features(world, "t00003")
    assert (later["terminal_count_7d"], later["terminal_risk_7d"]) == (1, 0)


def gateways(**changes: Any) -> AttachedVerdict:
    vector = np.full((1, len(LAYOUT.names)), 4.25)
    fields: dict[str, Any] = {
        "origin": "gateway",
        "decision": "approve",
        "variant": "none",
        "feature_set": LAYOUT.id,
        "features": pack_rows(vector)[0],
        "scored_at": NOW,
    }
    return AttachedVerdict(**(fields | changes))


def test_the_verdict_of_a_gateway_or_of_history_on_it_is_kept(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.send(
        transaction(1, kind="refund", verdict=gateways()),
        transaction(2, kind="refund", verdict=AttachedVerdict(origin="history", decision="approve", variant="none")),
    )

    world.stream().run_until_verdicts(2)

    verdicts = world.verdicts()
    assert (verdicts["t00001"].origin, verdicts["t00001"].features) == ("gateway", gateways().features)
    assert (verdicts["t00002"].origin, verdicts["t00002"].kind) == ("history", "refund")
    assert world.panes() == []


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("refund", gateways(score=0.2, model_version="1")),
        ("reversal", gateways(variant="champion")),
        ("purchase", gateways()),
    ],
)
def test_a_score_belongs_to_a_purchase_and_to_nothing_else(kind: Kind, verdict: AttachedVerdict) -> None:
    fault = verdict_fault(verdict, kind)
    assert fault is not None
    assert fault.reason == "invalid_verdict"
