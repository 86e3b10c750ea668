"""What the stream makes of each kind of record."""

from __future__ import annotations

import re
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from centinela.events import AttachedVerdict, LabelReported
from centinela.features.currency import Rates, RateSeries
from centinela.features.layout import pack_rows, unpack_rows
from centinela.model.panes import read_pane
from centinela.telemetry.tracing import new_traceparent
from centinela.times import to_ms_array
from centinela_predictor.state.admission import AdmissionRules
from centinela_predictor.state.terminal_activity import unpack_block
from tests.support.predictor_world import LAYOUT, NOW, START, World, transaction
from tests.support.served_models import served

DAY = timedelta(days=1)


def gateway_verdict(**changes: object) -> AttachedVerdict:
    fields: dict[str, object] = {
        "origin": "gateway",
        "decision": "decline",
        "variant": "champion",
        "score": 0.75,
        "threshold": 0.7,
        "model_version": "9",
        "feature_set": LAYOUT.id,
        "features": pack_rows(np.full((1, len(LAYOUT.names)), 4.25))[0],
        "reasons": ("amount is high",),
        "scored_at": NOW - DAY,
    }
    return AttachedVerdict(**(fields | changes))  # type: ignore[arg-type]


def test_a_transaction_gets_its_verdict_under_its_own_key_and_trace(tmp_path: Path) -> None:
    world = World(tmp_path)
    trace = new_traceparent()
    sent = transaction(1, amount=900.0, attributes={"v1": 0.5})
    world.broker.append("transactions", msgspec.json.encode(sent), b"u1", headers=(("traceparent", trace.encode()),))

    world.stream().run_until_verdicts(1)

    [record] = world.broker.records("predictions")
    [verdict] = world.predictions()
    assert record.key == b"u1"
    assert dict(record.headers) | {
        "traceparent": trace.encode(),
        "ce_type": b"TransactionScored",
        "ce_id": b"t00001",
    } == dict(record.headers)
    assert (verdict.score, verdict.decision, verdict.is_fraud, verdict.model_version, verdict.variant) == (
        0.9,
        "decline",
        True,
        "1",
        "champion",
    )
    assert (verdict.origin, verdict.threshold, verdict.feature_set) == ("stream", 0.8, LAYOUT.id)
    features = dict(zip(LAYOUT.names, unpack_rows([verdict.features], len(LAYOUT.names))[0], strict=True))
    assert features["amount"] == 900.0
    assert features["user_count_30d"] == 1
    assert features["v1"] == 0.5
    assert np.isnan(features["v2"])
    assert verdict.reasons


def test_a_copy_gets_no_second_verdict_and_leaves_no_trace(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.send(transaction(1), transaction(1), transaction(2, at=START + DAY), transaction(1))
    process = world.stream()

    process.run_until_verdicts(2)
    world.send(transaction(2, at=START + DAY), transaction(3, at=START + 2 * DAY))
    process.run_until_verdicts(3)

    last = unpack_rows([world.verdicts()["t00003"].features], len(LAYOUT.names))[0]
    assert last[LAYOUT.names.index("user_count_30d")] == 3
    assert world.dead() == []


@pytest.mark.parametrize(
    "other",
    [
        {"amount": 5.0},
        {"terminal": "m9"},
        {"at": START + timedelta(hours=1)},
        {"attributes": {"v1": 0.5}},
        {"currency": "USD"},
    ],
)
def test_another_transaction_under_a_known_id_is_a_conflict_also_after_a_crash(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    rates = Rates("EUR", {"USD": RateSeries(np.array([0]), np.array([1.0]))})
    world = World(tmp_path, partitions=1, rules=AdmissionRules(rates=rates))
    first = world.stream(snapshot_interval_s=0.0)
    world.send(transaction(1), transaction(1, **other))
    first.run_until_verdicts(1)
    first.kill()
    world.send(transaction(1, **other), transaction(2, user="u2"))

    world.stream().run_until_verdicts(2)

    conflict = msgspec.json.encode(transaction(1, **other))
    assert world.dead() == [("conflict", conflict)] * 2
    assert world.verdicts()["t00001"].amount == transaction(1).amount


def test_a_gateway_s_second_attempt_at_another_time_is_a_copy(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.send(
        transaction(1, verdict=gateway_verdict()),
        transaction(1, at=START + DAY, verdict=gateway_verdict()),
        transaction(2),
    )

    world.stream().run_until_verdicts(2)

    assert world.dead() == []


def test_a_copy_is_recognised_after_a_crash(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.send(transaction(1), transaction(2))
    first = world.stream(snapshot_interval_s=0.0)
    first.run_until_verdicts(2)
    first.kill()
    world.send(transaction(1), transaction(2), transaction(3))

    world.stream().run_until_verdicts(3)

    assert sorted(world.verdicts()) == ["t00001", "t00002", "t00003"]


GOOD = b'{"transaction_id":"x","occurred_at":"2018-04-01T00:00:00Z","amount":1.0}'
BAD: dict[str, list[bytes | None]] = {
    "malformed_json": [b"{", b"\xff", GOOD[:-1], b'{"x":' + b"[" * 5_000],
    "empty": [None, b""],
    "unsupported_version": [GOOD[:-1] + b',"version":2}'],
    "invalid_field": [
        b"{}",
        GOOD.replace(b"1.0", b"-1.0"),
        GOOD.replace(b"1.0", b'"NaN"'),
        GOOD.replace(b"1.0", b"2e9"),
        GOOD.replace(b'"x"', b'""'),
        GOOD.replace(b'"x"', b"7"),
        GOOD.replace(b"00Z", b"00"),
        GOOD[:-1] + b',"attributes":{"v1":"a"}}',
        b"[]",
        b"1",
    ],
    "time_in_future": [GOOD.replace(b"2018", b"2031"), GOOD.replace(b"2018", b"9999")],
    "time_before_1970": [GOOD.replace(b"2018", b"1969"), GOOD.replace(b"2018", b"0001")],
    "invalid_verdict": [
        msgspec.json.encode(transaction(7, verdict=gateway_verdict(**changes)))
        for changes in (
            {"score": None},
            {"model_version": None},
            {"variant": "none"},
            {"features": b"12345678"},
            {"feature_set": "v2:a"},
            {"feature_set": None},
        )
    ],
}


@pytest.mark.parametrize(("reason", "value"), [(reason, value) for reason, values in BAD.items() for value in values])
def test_what_is_no_transaction_is_dead_lettered_and_the_rest_goes_on(
    tmp_path: Path, reason: str, value: bytes | None
) -> None:
    world = World(tmp_path, partitions=1)
    world.send(transaction(1))
    world.broker.append("transactions", value, b"k", headers=(("from", b"afar"),))
    world.send(transaction(2))

    world.stream().run_until_verdicts(2)

    assert sorted(world.verdicts()) == ["t00001", "t00002"]
    assert world.dead() == [(reason, value)]
    [record] = world.broker.records("transactions-dlq")
    assert dict(record.headers) | {
        "dlq.topic": b"transactions",
        "dlq.partition": b"0",
        "dlq.offset": b"1",
        "from": b"afar",
    } == dict(record.headers)


def test_what_was_refused_once_is_refused_when_it_is_replayed_later(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=1)
    ahead = NOW + timedelta(hours=30)
    world.send(transaction(1, at=ahead), transaction(2, at=START))
    first = world.stream()
    first.run_until_verdicts(1)
    first.kill()
    world.clock.set(NOW + 10 * DAY)
    world.send(transaction(3, at=ahead + DAY - timedelta(hours=30)))

    world.stream().run_until_verdicts(2)

    assert [reason for reason, _ in world.dead()] == ["time_in_future"]
    last = unpack_rows([world.verdicts()["t00003"].features], len(LAYOUT.names))[0]
    assert last[LAYOUT.names.index("user_seconds_since_last")] == (ahead - timedelta(hours=6) - START).total_seconds()


def test_a_gateway_s_verdict_is_adopted_as_it_stands_and_needs_no_model(tmp_path: Path) -> None:
    world = World(tmp_path, model=None)
    given = gateway_verdict()
    world.send(transaction(1, verdict=given), transaction(2, at=START + DAY, verdict=given))

    world.stream().run_until_verdicts(2)

    for verdict in world.verdicts().values():
        assert (verdict.origin, verdict.decision, verdict.is_fraud, verdict.variant) == (
            "gateway",
            "decline",
            True,
            "champion",
        )
        assert (verdict.score, verdict.threshold, verdict.model_version, verdict.scored_at) == (
            0.75,
            0.7,
            "9",
            NOW - DAY,
        )
        assert (verdict.features, verdict.feature_set, verdict.reasons) == (
            given.features,
            LAYOUT.id,
            ("amount is high",),
        )


def test_a_gateway_s_transaction_is_in_the_windows_of_the_next(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.send(transaction(1, verdict=gateway_verdict()), transaction(2, at=START + timedelta(hours=1)))

    world.stream().run_until_verdicts(2)

    second = unpack_rows([world.verdicts()["t00002"].features], len(LAYOUT.names))[0]
    assert second[LAYOUT.names.index("user_count_1d")] == 2


def test_a_gateway_s_verdict_without_its_vector_is_logged_with_the_stream_s(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.send(transaction(1, verdict=gateway_verdict(features=None, feature_set=None)))

    world.stream().run_until_verdicts(1)

    [verdict] = world.predictions()
    assert unpack_rows([verdict.features], len(LAYOUT.names))[0, 0] == 100.0
    assert (verdict.score, verdict.feature_set, verdict.origin) == (0.75, LAYOUT.id, "gateway")


def test_history_gets_features_and_no_score_and_needs_no_model(tmp_path: Path) -> None:
    world = World(tmp_path, model=None)
    world.send(
        transaction(
            1,
            verdict=AttachedVerdict(origin="history", decision="approve", variant="none", score=0.4, model_version="3"),
        )
    )

    world.stream().run_until_verdicts(1)

    [verdict] = world.predictions()
    assert (verdict.origin, verdict.variant, verdict.score, verdict.model_version) == ("history", "none", None, None)
    assert unpack_rows([verdict.features], len(LAYOUT.names))[0, 0] == 100.0
    assert world.panes() == []


def test_the_first_transaction_that_needs_a_model_waits_for_one_and_those_with_a_verdict_do_not(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=1, model=None)
    world.send(transaction(1, verdict=gateway_verdict()), transaction(2), transaction(3, verdict=gateway_verdict()))
    process = world.stream()

    for _ in range(50):
        process.step()
    waiting = sorted(world.verdicts())
    world.slot.swap("champion", served("1"))
    process.run_until_verdicts(3)

    assert waiting == ["t00001"]
    assert sorted(world.verdicts()) == ["t00001", "t00002", "t00003"]


def test_a_pane_counts_what_a_model_scored_here_or_in_a_gateway(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=1)
    world.send(
        transaction(1, amount=900.0),
        transaction(2, at=START + timedelta(minutes=5)),
        transaction(3, verdict=gateway_verdict()),
        transaction(4, verdict=gateway_verdict(model_version="1", decision="approve", score=0.1)),
        transaction(5, verdict=AttachedVerdict(origin="history", decision="approve", variant="none")),
    )

    world.stream().run_until_verdicts(5)

    panes = {pane.model_version: pane for pane in world.panes()}
    assert {version: (pane.count, pane.alerts) for version, pane in panes.items()} == {"1": (3, 1), "9": (1, 1)}
    assert read_pane(panes["1"]).histograms.sum() == 3
    assert read_pane(panes["1"]).histograms[0] == 1, "the gateway's own vector is in the histogram: its amount is 4.25"
    assert panes["9"].histograms == b""
    assert panes["1"].watermark == START + timedelta(minutes=5)


def test_both_models_score_their_shares_and_say_so(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.slot.swap("challenger", served("2"))
    world.send(*[transaction(n, user=f"u{n}") for n in range(60)])

    world.stream().run_until_verdicts(60)

    variants = {(v.variant, v.model_version) for v in world.predictions()}
    assert variants == {("champion", "1"), ("challenger", "2")}
    assert sum(pane.count for pane in world.panes()) == 60


def test_a_block_has_each_terminal_s_transaction_once_and_the_watermark(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=1)
    world.send(
        transaction(1, terminal="m"),
        transaction(1, terminal="m"),
        transaction(2),
        transaction(3, terminal="n", at=START + DAY),
    )

    world.stream().run_until_verdicts(3)

    blocks = [unpack_block(r.value) for r in world.broker.records("terminal-activity")]
    times = np.concatenate([b.times for b in blocks]).tolist()
    assert times == to_ms_array([START, START + DAY]).tolist()
    assert blocks[-1].watermark == times[-1]


def test_bad_labels_and_blocks_are_passed_over(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=1)
    world.broker.append("labels", b"nonsense")
    world.broker.append("terminal-activity", b"nonsense", partition=0)
    world.broker.append("terminal-activity", None, partition=0)
    world.report(LabelReported(transaction_id="t00001", is_fraud=True, occurred_at=START, reported_at=START + DAY))
    world.send(transaction(1, terminal="m"), transaction(2, terminal="m", at=START + 8 * DAY - timedelta(seconds=1)))

    world.stream().run_until_verdicts(2)

    second = unpack_rows([world.verdicts()["t00002"].features], len(LAYOUT.names))[0]
    assert second[LAYOUT.names.index("terminal_risk_1d")] == 1.0


def test_a_missing_topic_is_named_and_waited_for(tmp_path: Path) -> None:
    world = World(tmp_path)
    del world.broker._counts["labels"]
    process = world.stream()

    process.step()
    waiting = process.health.unmet()
    world.broker.create("labels", 2)
    world.send(transaction(1))
    process.run_until_verdicts(1)

    assert re.search(r"topic labels does not exist", waiting["kafka"])
    assert process.health.ready


def test_a_disk_that_refuses_snapshots_does_not_stop_the_stream(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=1)
    process = world.stream(snapshot_interval_s=0.05)
    world.send(transaction(1))
    process.run_until_verdicts(1)
    shutil.rmtree(tmp_path / "partitions", ignore_errors=True)
    (tmp_path / "partitions").write_bytes(b"a file where the folder should be")

    for _ in range(10):
        process.step()
    world.send(transaction(2))
    process.run_until_verdicts(2)
    process.step()
    refused = process.health.unmet()
    (tmp_path / "partitions").unlink()
    for _ in range(10):
        process.step()

    assert "snapshot" in refused["disk"]
    assert process.health.ready, "the disk is there again, and needs no transaction to be tried"


def test_a_disk_that_cannot_be_read_at_the_start_is_waited_for(tmp_path: Path) -> None:
    world = World(tmp_path, partitions=1)
    (tmp_path / "partitions").write_bytes(b"a file where the folder should be")
    world.send(transaction(1))
    process = world.stream()

    process.step()
    process.step()
    waiting = process.health.unmet()
    (tmp_path / "partitions").unlink()
    process.run_until_verdicts(1)

    assert "cannot read" in waiting["disk"]
