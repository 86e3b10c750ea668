"""``docs/metrics.md``: every metric of every process in one table. ``python -m centinela.metrics_table`` prints it.

A package names its modules of metrics in the entry-point group ``centinela.metrics``; each of them says in
``EXPORTED_BY`` which processes export what it defines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import ModuleType

from prometheus_client.metrics import MetricWrapperBase

from centinela.telemetry.metrics import GaugeFamily

GROUP = "centinela.metrics"

HEADER = """# Metrics

Every process serves its metrics at `/metrics`, with those of the Python process (`process_*`, `python_*`).
Where two processes share a module of metrics, both export all of it, and one of them may never change a value.
A histogram `x` is exported as `x_bucket`, `x_sum` and `x_count`.
This page is generated: `python -m centinela.metrics_table > docs/metrics.md`.
"""


@dataclass(frozen=True)
class MetricRow:
    """One metric as it is exported."""

    name: str
    kind: str
    labels: tuple[str, ...]
    documentation: str
    exported_by: tuple[str, ...]


def rows() -> list[MetricRow]:
    """Every metric of the installed packages, by name."""
    modules: list[ModuleType] = [point.load() for point in entry_points(group=GROUP)]
    return sorted((row for module in modules for row in _rows_of(module)), key=lambda row: row.name)


def render() -> str:
    """The page."""
    lines = [HEADER, "| metric | type | labels | meaning | exported by |", "|---|---|---|---|---|"]
    for row in rows():
        labels = ", ".join(f"`{label}`" for label in row.labels)
        cells = (f"`{row.name}`", row.kind, labels, row.documentation, ", ".join(row.exported_by))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _rows_of(module: ModuleType) -> Iterator[MetricRow]:
    for value in vars(module).values():
        if isinstance(value, MetricWrapperBase):
            kind = value._type or "untyped"
            suffix = "_total" if kind == "counter" else ""
            yield MetricRow(
                value._name + suffix, kind, tuple(value._labelnames), value._documentation, module.EXPORTED_BY
            )
        elif isinstance(value, GaugeFamily):
            yield MetricRow(value.name, "gauge", value.labels, value.documentation, module.EXPORTED_BY)


if __name__ == "__main__":
    print(render(), end="")
