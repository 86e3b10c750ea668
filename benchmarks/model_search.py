"""What the defaults of ``params.yaml`` were chosen from: ``python benchmarks/model_search.py FILE``.

Every setting is trained as on the morning of each of four weeks before the benchmark's test week, on the seven days
whose labels are in by then, and scored on the week. The benchmark's own week is never looked at: on the morning it
begins, all labels used here are in. A setting is a change to ``params.yaml``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from model_data import (
    DELAY_DAYS,
    Stream,
    Week,
    day,
    handbook_file,
    quality,
    read_transactions,
    reports_of,
    test_week,
    to_stream,
    training_set,
)

from centinela.model.backends import as_served
from centinela_trainer.params import MODEL_KINDS, ModelKind, Params, load_params
from centinela_trainer.training.dataset import Dataset
from centinela_trainer.training.estimators import build_estimator
from centinela_trainer.training.fit import fraud_scores

WEEKS = ("2018-05-14", "2018-05-21", "2018-05-28", "2018-06-04")
SETTINGS: dict[ModelKind, tuple[dict[str, Any], ...]] = {
    "hgb": (
        *(
            {"max_iter": 100, "learning_rate": rate, "max_leaf_nodes": leaves}
            for rate in (0.03, 0.05, 0.08)
            for leaves in (7, 15, 31)
        ),
        {"max_iter": 150, "learning_rate": 0.08, "max_leaf_nodes": 15},
        {"max_iter": 200, "learning_rate": 0.03, "max_leaf_nodes": 15},
        *(
            {"max_iter": 100, "learning_rate": 0.05, "max_leaf_nodes": 15, **more}
            for more in (
                {"min_samples_leaf": 20},
                {"min_samples_leaf": 40},
                {"l2_regularization": 10.0},
                {"class_weight": "balanced"},
            )
        ),
    ),
    "rf": (
        *({"max_depth": depth, "max_samples": 0.25} for depth in (8, 12, None)),
        *(
            {"max_depth": None, "max_samples": 0.25, **more}
            for more in ({"max_features": 0.5}, {"class_weight": None}, {"min_samples_leaf": 5})
        ),
        {"max_depth": None, "max_samples": 0.5},
        *({"max_depth": depth, "max_samples": 0.25, "class_weight": None} for depth in (12, 16)),
    ),
    "lr": tuple({"C": c, "class_weight": weight} for c in (0.01, 0.1, 1.0, 10.0) for weight in (None, "balanced")),
}
LENGTHS = (7, 14, 21, 28)
_LAST_WEEKS = 2


def changed(params: Params, kind: ModelKind, values: Mapping[str, Any]) -> Params:
    """*params* with other *values* for the estimator of *kind*."""
    tree = msgspec.to_builtins(params)
    tree["train"][kind].update(values)
    return msgspec.convert(tree, Params)


def figures(kind: ModelKind, params: Params, cases: list[tuple[Dataset, Week]]) -> dict[str, float]:
    """Mean and least average precision, and mean Card Precision@100, over *cases*."""
    qualities = []
    for dataset, week in cases:
        estimator = build_estimator(kind, params)
        estimator.fit(as_served(dataset.matrix), dataset.is_fraud.astype(np.int64))
        qualities.append(quality(week, fraud_scores(estimator, as_served(week.matrix))))
    return {
        "average_precision": float(np.mean([q.average_precision for q in qualities])),
        "least": float(np.min([q.average_precision for q in qualities])),
        "card_precision": float(np.mean([q.card_precision for q in qualities])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--kind", choices=MODEL_KINDS, action="append")
    parser.add_argument("--lengths", action="store_true", help="days of training instead of settings")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="JSON lines: what was tried; what is there already is not tried again",
    )
    chosen = parser.parse_args()
    params = load_params(chosen.params)
    tried = [json.loads(line) for line in chosen.output.read_text().splitlines()] if chosen.output.exists() else []
    transactions = read_transactions(handbook_file(chosen.file))
    stream = to_stream(transactions, reports_of(transactions))
    with chosen.output.open("a") as output:
        for kind in chosen.kind or MODEL_KINDS:
            for days, weeks, settings in plan(kind, chosen.lengths):
                row: dict[str, Any] = {"kind": kind, "days": days, "settings": settings}
                if not any(row.items() <= other.items() for other in tried):
                    row |= figures(kind, changed(params, kind, settings), cases_of(stream, weeks, days))
                    print(json.dumps(row), file=output, flush=True)
                    print(json.dumps(row), flush=True)


def plan(kind: ModelKind, lengths: bool) -> Iterator[tuple[int, tuple[str, ...], dict[str, Any]]]:
    """Days of training, test weeks and settings of each trial."""
    if lengths:
        yield from ((days, WEEKS[-_LAST_WEEKS:], {}) for days in LENGTHS)
    else:
        yield from ((DELAY_DAYS, WEEKS, settings) for settings in SETTINGS[kind])


def cases_of(stream: Stream, weeks: tuple[str, ...], days: float) -> list[tuple[Dataset, Week]]:
    """For each week what would have been learnt from, and the week."""
    return [(training_set(stream, day(start), days), test_week(stream, day(start))) for start in weeks]


if __name__ == "__main__":
    main()
