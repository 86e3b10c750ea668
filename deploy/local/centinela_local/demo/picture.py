"""The picture that a demo leaves behind."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import matplotlib

from centinela_local.demo.story import Story

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw(story: Story, until: datetime, path: Path) -> None:
    """Average precision, alert rate and model version over event time, as a PNG at *path*."""
    figure, (precision, alerts, version) = plt.subplots(
        3, 1, sharex=True, figsize=(10, 7), height_ratios=(3, 2, 1), layout="constrained"
    )
    for name in dict.fromkeys(m.version for m in story.measurements):
        points = [m for m in story.measurements if m.version == name]
        precision.plot([m.end for m in points], [m.value for m in points], marker=".", label=f"version {name}")
    precision.set(
        ylabel="average precision\n(mature labels)",
        ylim=(0, 1),
        title="A new fraud pattern, and the loop that answers it",
    )
    if story.measurements:
        precision.legend(loc="lower left")
    alerts.plot([at for at, _ in story.alert_rates], [rate * 100 for _, rate in story.alert_rates], color="tab:orange")
    alerts.set(ylabel="declined, %")
    alerts.set_ylim(bottom=0)
    moves = [(at, name) for at, name in story.promotions if at is not None]
    version.step(
        [at for at, _ in moves] + [until],
        [name for _, name in (moves + moves[-1:])] if moves else ["none"],
        where="post",
        color="tab:green",
    )
    version.set(ylabel="champion", xlabel="event time")
    marks = [
        (story.attack_at, "attack starts", "tab:red"),
        *((r.as_of, "retrain requested", "tab:purple") for r in story.drift_requests),
    ]
    for at, label, colour in marks:
        for axes in (precision, alerts, version):
            axes.axvline(at, color=colour, linestyle="--", linewidth=1)
        precision.annotate(
            label, (at, 1), xytext=(3, -10), textcoords="offset points", color=colour, fontsize=8, annotation_clip=False
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
