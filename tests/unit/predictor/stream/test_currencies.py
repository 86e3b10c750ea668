"""Transactions of several currencies: windows in the base currency, a dead letter where there is no rate."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from centinela.events import AttachedVerdict
from centinela.features.currency import Rates, RateSeries
from centinela.features.layout import pack_rows, unpack_rows
from centinela.features.snapshots.format import SnapshotDamaged
from centinela.times import to_ms
from centinela_predictor.state.admission import AdmissionRules
from centinela_predictor.state.partition_state import PartitionState
from tests.support.predictor_world import LAYOUT, START, World, transaction

HOUR = timedelta(hours=1)
JPY = RateSeries(np.array([to_ms(START)]), np.array([0.0075]))
EUR_RULES = AdmissionRules(rates=Rates("EUR", {"JPY": JPY}))
USD_RULES = AdmissionRules(rates=Rates("USD", {"EUR": RateSeries(np.array([0]), np.array([1.25]))}))


def features(world: World, transaction_id: str) -> dict[str, float]:
    [row] = unpack_rows([world.verdicts()[transaction_id].features], len(LAYOUT.names))
    return dict(zip(LAYOUT.names, row.tolist(), strict=True))


def test_a_window_adds_up_in_the_base_currency_and_the_verdict_says_so(tmp_path: Path) -> None:
    world = World(tmp_path, rules=EUR_RULES)
    world.send(
        transaction(1, amount=100_000.0, currency="JPY"),
        transaction(2, amount=100_000.0, currency="EUR", at=START + HOUR),
    )

    world.stream().run_until_verdicts(2)

    yen, euro = (world.verdicts()[name] for name in ("t00001", "t00002"))
    assert (yen.amount, yen.currency, yen.feature_currency) == (100_000.0, "JPY", "EUR")
    assert (euro.amount, euro.currency, euro.feature_currency) == (100_000.0, "EUR", None)
    assert (features(world, "t00001")["amount"], features(world, "t00001")["user_max_30d"]) == (750.0, 750.0)
    assert features(world, "t00002")["user_mean_30d"] == 50_375.0


@pytest.mark.parametrize(
    ("currency", "at", "detail"), [("CHF", START, "no rate from CHF"), ("JPY", START - HOUR, "no rate from JPY")]
)
def test_what_has_no_rate_is_a_dead_letter_that_says_so_and_in_no_window(
    tmp_path: Path, currency: str, at: datetime, detail: str
) -> None:
    world = World(tmp_path, rules=EUR_RULES)
    world.send(transaction(1, currency=currency, at=at), transaction(2, at=START + HOUR))

    world.stream().run_until_verdicts(1)

    [letter] = world.broker.records("transactions-dlq")
    headers = dict(letter.headers)
    assert headers["dlq.reason"] == b"no_rate"
    assert headers["dlq.detail"].decode().startswith(detail)
    assert features(world, "t00002")["user_count_30d"] == 1


def test_by_default_only_the_default_currency_is_taken(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.send(transaction(1, currency="JPY"), transaction(2))

    world.stream().run_until_verdicts(1)

    assert [reason for reason, _ in world.dead()] == ["no_rate"]
    assert world.verdicts()["t00002"].feature_currency is None


def test_one_currency_that_is_not_the_default_needs_no_rates(tmp_path: Path) -> None:
    world = World(tmp_path, rules=AdmissionRules(rates=Rates("USD")))
    world.send(transaction(1, currency="USD", amount=8.0))

    world.stream().run_until_verdicts(1)

    assert (features(world, "t00001")["amount"], world.verdicts()["t00001"].feature_currency) == (8.0, None)


def test_the_vector_of_a_gateway_keeps_the_currency_that_it_was_made_in(tmp_path: Path) -> None:
    world = World(tmp_path, rules=USD_RULES)
    verdict = AttachedVerdict(
        origin="gateway",
        decision="approve",
        variant="champion",
        score=0.1,
        model_version="1",
        feature_set=LAYOUT.id,
        features=pack_rows(np.full((1, len(LAYOUT.names)), 4.0))[0],
    )
    world.send(transaction(1, verdict=verdict), transaction(2))

    world.stream().run_until_verdicts(2)

    verdicts = world.verdicts()
    assert (verdicts["t00001"].feature_currency, verdicts["t00002"].feature_currency) == (None, "USD")


def test_state_in_another_base_currency_is_built_again_from_the_log(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=1, rules=AdmissionRules(rates=Rates("EUR")))
    world.send(transaction(1, amount=8.0))
    first = world.stream(snapshot_interval_s=0.0)
    first.run_until_verdicts(1)
    first.end()
    world.rules = USD_RULES
    world.send(transaction(2, amount=8.0, at=START + HOUR))

    world.stream().run_until_verdicts(2)

    assert features(world, "t00002")["user_mean_30d"] == 10.0
    assert features(world, "t00002")["user_count_30d"] == 2


def test_a_snapshot_of_the_default_currency_is_that_of_earlier_releases() -> None:
    euro = PartitionState(layout=LAYOUT).to_bytes()
    assert b"partition:3" in euro
    assert b"@" not in euro[:200]
    with pytest.raises(SnapshotDamaged):
        PartitionState.from_bytes(euro, layout=LAYOUT, currency="USD")
