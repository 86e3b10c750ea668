"""``centinela models``: what it prints and how it ends."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner, Result

from centinela.model.registry import CHALLENGER, CHAMPION, Registry
from centinela.settings import Settings
from centinela.testing.clock import FixedClock
from centinela.testing.registry_store import FakeStore
from centinela_registry_watcher.commands.models import build_app

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def registry() -> Registry:
    store = FakeStore()
    registry = Registry(Settings(), store=store, clock=FixedClock(NOW))
    for n in range(3):
        store.add_version(
            registry.model_name, NOW, metrics={"average_precision": 0.7 + n / 100}, tags={"model_kind": "hgb"}
        )
    return registry


def run(registry: Registry, *arguments: str) -> Result:
    return CliRunner().invoke(build_app(lambda: registry), list(arguments), env={"COLUMNS": "160"})


def test_versions_are_listed_with_alias_stage_and_metrics(registry: Registry) -> None:
    registry.promote("2")
    registry.set_alias(CHALLENGER, "3")

    lines = run(registry, "list").output.splitlines()

    assert [[cell.strip() for cell in line.split("│")[1:6]] for line in lines if "hgb" in line] == [
        ["3", "challenger", "Staging", "hgb", "0.720"],
        ["2", "champion", "Production", "hgb", "0.710"],
        ["1", "", "", "hgb", "0.700"],
    ]


def test_a_promotion_says_what_changed(registry: Registry) -> None:
    registry.promote("1")
    result = run(registry, "promote", "3", "--expect", "1", "--reason", "[bold]better[/bold]")
    assert (result.exit_code, result.output) == (0, "champion of FraudDetector: 1 -> 3\n")
    assert registry.version_of(CHAMPION) == "3"
    assert "[bold]better[/bold]" in run(registry, "history").output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("promote", "3", "--expect", "2"), "the champion of FraudDetector is 1, not 2"),
        (("promote", "3", "--expect", "none"), "the champion of FraudDetector is 1, not none"),
        (("promote", "99"), "FraudDetector has no version 99"),
        (("rollback",), "FraudDetector has no earlier champion"),
    ],
)
def test_a_conflict_ends_with_1_and_one_clear_line(registry: Registry, arguments: tuple[str, ...], why: str) -> None:
    registry.promote("1")
    result = run(registry, *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"centinela: nothing was changed: {why}")
    assert len(result.stderr.splitlines()) == 1
    assert registry.version_of(CHAMPION) == "1"


def test_a_rollback_returns_to_the_champion_before(registry: Registry) -> None:
    registry.promote("1")
    registry.promote("2")
    result = run(registry, "rollback")
    assert (result.exit_code, result.output) == (0, "champion of FraudDetector: 2 -> 1\n")


def test_an_empty_registry_says_so() -> None:
    empty = Registry(Settings(), store=FakeStore())
    assert run(empty, "list").output == "FraudDetector has no versions yet\n"
    assert run(empty, "history").output == "FraudDetector has no history yet\n"
