"""The little of Prometheus' text format that the demo reads."""

from __future__ import annotations

import re

_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def total(text: str, name: str, **labels: str) -> float | None:
    """The sum of all samples of metric *name* that carry these labels; None where there is none."""
    matching = [value for sample, value in samples(text, name) if labels.items() <= sample.items()]
    return sum(matching) if matching else None


def samples(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    """Labels and value of every sample of metric *name*."""
    matches = (_SAMPLE.match(line) for line in text.splitlines() if line.startswith(name))
    return [
        (dict(_LABEL.findall(match["labels"] or "")), float(match["value"]))
        for match in matches
        if match and match["name"] == name
    ]
