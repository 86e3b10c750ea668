"""What a soak leaves in addition to its samples: a table, a picture, a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

from centinela_local.soak.growth import Growth, faults, growth, restarts, unready
from centinela_local.soak.samples import Series, read_series

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SAMPLES, TABLE, PICTURE = "samples.csv", "growth.md", "growth.png"
_PANELS = {"rss_mb": "resident memory, MB", "files": "open files", "threads": "threads", "lag": "lag, records"}


def write_report(folder: Path, warm_up_s: float) -> list[str]:
    """Read the samples of *folder* and write table and picture next to them. Returns the reasons why the soak fails."""
    series = read_series(folder / SAMPLES)
    growths = growth(series, warm_up_s)
    (folder / TABLE).write_text(table(growths))
    _draw(series, warm_up_s, folder / PICTURE)
    wrong = faults(growths, restarts(series), unready(series))
    return wrong if growths else ["too few samples after the warm-up"]


def table(growths: list[Growth]) -> str:
    """Markdown: first, last and greatest value after the warm-up, growth per hour, limit."""
    lines = [
        "| what | of | first | last | most | growth an hour | in the last half | limit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for g in sorted(growths, key=lambda g: (g.measure, g.subject)):
        limit = f"{g.limit:.1f}" if g.by_design is None else g.by_design
        lines.append(
            f"| {g.measure} | {g.subject} | {g.first:,.1f} | {g.last:,.1f} | {g.most:,.1f} | {g.per_hour:+,.2f} |"
            f" {g.late_per_hour:+,.2f} | {limit} |"
        )
    return "\n".join(lines) + "\n"


def _draw(series: Mapping[tuple[str, str], Series], warm_up_s: float, path: Path) -> None:
    figure, axes = plt.subplots(len(_PANELS), 1, sharex=True, figsize=(10, 11), layout="constrained")
    for panel, (measure, label) in zip(axes, _PANELS.items(), strict=True):
        for (subject, name), (seconds, values) in sorted(series.items()):
            if name == measure:
                panel.plot([s / 60 for s in seconds], values, linewidth=1, label=subject)
        panel.axvline(warm_up_s / 60, color="grey", linestyle="--", linewidth=1)
        panel.set(ylabel=label, yscale="symlog" if measure == "lag" else "linear")
        panel.set_ylim(bottom=0)
        panel.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    axes[-1].set(xlabel="minutes of live stream; growth is judged right of the dashed line")
    figure.savefig(path, dpi=110)
    plt.close(figure)
