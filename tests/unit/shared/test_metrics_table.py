"""The page of metrics is current, and no metric is missing from it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from centinela.metrics_table import render, rows
from centinela_local.paths import CHECKOUT

KINDS = {"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum", "GaugeFamily", "GaugeMetricFamily"}
PRODUCT = ("shared", "services", "deploy/local")


def test_the_metrics_page_is_the_one_that_the_code_generates() -> None:
    page = CHECKOUT / "docs" / "metrics.md"
    assert page.read_text() == render(), "run: python -m centinela.metrics_table > docs/metrics.md"


def test_every_metric_that_any_module_defines_is_on_the_page() -> None:
    defined = {name for folder in PRODUCT for path in (CHECKOUT / folder).rglob("*.py") for name in _defined_in(path)}
    assert len(defined) > 50
    assert defined == {row.name for row in rows()}


def test_every_metric_says_what_it_means_and_who_exports_it_and_only_once() -> None:
    names = [row.name for row in rows()]
    assert len(names) == len(set(names))
    for row in rows():
        assert row.exported_by
        assert row.documentation.endswith(".")


def _defined_in(path: Path) -> Iterator[str]:
    """The names of the metrics that the source at *path* constructs, read without importing it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value
