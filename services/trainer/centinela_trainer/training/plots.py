"""The pictures of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from centinela.model.metrics import average_precision
from centinela_trainer.training.evaluation import Bools, Floats, confusion


def confusion_matrix(is_fraud: Bools, scores: Floats, threshold: float, path: Path) -> None:
    """Counts at *threshold*, with the share of each row."""
    counts = confusion(is_fraud, scores >= threshold)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(4.6, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(
            column,
            row,
            f"{count:,}\n{shares[row, column]:.1%}",
            ha="center",
            va="center",
            color="white" if shares[row, column] > 0.5 else "black",
        )
    axes.set(
        xticks=[0, 1],
        xticklabels=["passed", "flagged"],
        yticks=[0, 1],
        yticklabels=["genuine", "fraud"],
        title=f"Test days, threshold {threshold:.3f}",
    )
    _save(figure, path)


def precision_recall(is_fraud: Bools, curves: dict[str, Floats], path: Path) -> None:
    """One curve for each named score column; *is_fraud* holds at least one fraud."""
    figure = Figure(figsize=(5.2, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for name, scores in curves.items():
        precision, recall, _ = precision_recall_curve(is_fraud, scores)
        axes.step(recall, precision, where="post", label=f"{name} (AP {average_precision(is_fraud, scores):.3f})")
    axes.axhline(float(is_fraud.mean()), color="grey", linestyle=":", label="no skill")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="Test days")
    axes.legend(loc="best", fontsize="small")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png")
