"""A field that nobody knows, on the topic: it gets a verdict and is said, or is a dead letter, by setting."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from centinela.events import encode
from centinela.features.known_fields import KnownFields
from centinela.kafka.port import Record
from centinela_predictor.state.admission import AdmissionRules, admit
from tests.support.predictor_world import LAYOUT, NOW, START, World, transaction

FIELDS = frozenset({"v1", "v2", "time"})
REPORT, REFUSE = (AdmissionRules(KnownFields(FIELDS, refuse=refuse)) for refuse in (False, True))
MISSPELT: list[dict[str, Any]] = [
    {"terminal": "t-1"},
    {"userId": "u-1"},
    {"attributes": {"V1": 0.5}},
    {"attributes": {"v1": 0.5, "v2": 1, "v29": None}},
    {"Attributes": {"v1": 0.5}},
]


def value(**changes: Any) -> bytes:
    content = msgspec.json.decode(encode(transaction(1, attributes={"v1": 0.5})))
    return msgspec.json.encode(content | changes)


def record(body: bytes, offset: int = 0) -> Record:
    return Record("transactions", 0, offset, b"u1", body)


def counted() -> float:
    return REGISTRY.get_sample_value("centinela_unknown_fields_total", {"service": "stream"}) or 0.0


@pytest.mark.parametrize("changes", MISSPELT, ids=str)
def test_by_default_it_gets_a_verdict_and_is_counted_and_logged_by_name(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    world, before = World(tmp_path, rules=REPORT), counted()
    world.broker.append("transactions", value(**changes), b"u1")
    world.send(transaction(2, at=START + timedelta(minutes=1)))
    with capture_logs() as logs:
        world.stream().run_until_verdicts(2)
    assert (world.dead(), counted() - before) == ([], 1)
    [name] = [entry["field"] for entry in logs if entry["event"] == "transaction.unknown_field"]
    assert name.rpartition(".")[2] in str(changes)


@pytest.mark.parametrize("changes", MISSPELT, ids=str)
def test_where_it_is_refused_it_is_a_dead_letter_that_names_it(changes: dict[str, Any]) -> None:
    good = encode(transaction(2, attributes={"v1": 1.0, "time": 42.0}))
    admitted = admit([record(good), record(value(**changes), 1), record(good, 2)], NOW, LAYOUT, REFUSE)
    assert [r.offset for r in admitted.records] == [0, 2]
    [letter] = admitted.refused
    assert letter.reason == "unknown_field"
    assert "is neither a field here nor an attribute" in letter.detail


def test_what_is_wrong_besides_is_said_first() -> None:
    [letter] = admit([record(value(terminal="t-1", amount=-1))], NOW, LAYOUT, REFUSE).refused
    assert (letter.reason, "$.amount" in letter.detail) == ("invalid_field", True)


def test_a_known_record_is_the_same_event_with_and_without_the_check() -> None:
    [strict], [plain] = (admit([record(value())], NOW, LAYOUT, rules).events for rules in (REFUSE, AdmissionRules()))
    assert encode(strict) == encode(plain)


def test_many_different_names_do_not_fill_the_log(tmp_path: Path) -> None:
    world = World(tmp_path, rules=REPORT)
    for n in range(120):
        content = msgspec.json.decode(encode(transaction(n)))
        world.broker.append("transactions", msgspec.json.encode(content | {f"field{n}": n}), b"u1")
    with capture_logs() as logs:
        world.stream().run_until_verdicts(120)
    assert sum(entry["event"] == "transaction.unknown_field" for entry in logs) == 100
