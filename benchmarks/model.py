"""How good the platform's default training is, on the Fraud Detection Handbook's stream: ``python benchmarks/model.py
FILE``.

Features by ``build_features``, training by the trainer's own code and ``params.yaml``, on the days before 2018-06-11;
seven days of delay; tests on 2018-06-18 to 24, less the cards known by then (see ``model_data``). Exit code 1 where a
figure is too good to be true.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import time
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from model_data import (
    CARDS_PER_DAY,
    DELAY_DAYS,
    FILE_VARIABLE,
    LEAK_AUC,
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

from centinela.features.layout import TRANSACTION_FEATURES
from centinela.model.backends import as_served
from centinela_trainer.params import MODEL_KINDS, ModelKind, Params, load_params
from centinela_trainer.training.dataset import Dataset
from centinela_trainer.training.fit import fraud_scores, train

TEST_START = "2018-06-18"
LENGTHS = (7, 14, 28)


def measured(kind: ModelKind, params: Params, dataset: Dataset, week: Week) -> dict[str, Any]:
    """The default training of *kind* on *dataset*, judged on *week*."""
    started = time.process_time()
    candidate = train(dataset, kind, params)
    trained = time.process_time()
    columns = [dataset.names.index(name) for name in candidate.names]
    scores = fraud_scores(candidate.estimator, as_served(week.matrix[:, columns]))
    judged = quality(week, scores)
    return {
        "kind": kind,
        "features": len(candidate.names),
        "rows": len(dataset),
        "frauds": int(dataset.is_fraud.sum()),
        "average_precision": judged.average_precision,
        "roc_auc": judged.roc_auc,
        f"card_precision_at_{CARDS_PER_DAY}": judged.card_precision,
        "leak_suspected": judged.leaks,
        "cpu_s": round(trained - started, 2),
    }


def without_history(dataset: Dataset, week: Week) -> tuple[Dataset, Week]:
    """The same rows with the transaction's own features only."""
    at = [dataset.names.index(name) for name in TRANSACTION_FEATURES]
    return (
        dataclasses.replace(dataset, names=TRANSACTION_FEATURES, matrix=dataset.matrix[:, at]),
        dataclasses.replace(week, matrix=week.matrix[:, at]),
    )


def benchmark_rows(
    stream: Stream, params: Params, test_start: datetime, lengths: Sequence[int] = LENGTHS
) -> list[dict[str, Any]]:
    """Every kind with every length of training, and the default kind without history.

    Without the gate's cross-fitting, which takes half of the time and does not touch the model that is registered.
    """
    fast = msgspec.structs.replace(params, evaluate=msgspec.structs.replace(params.evaluate, folds=1))
    week = test_week(stream, test_start)
    rows: list[dict[str, Any]] = []
    for days in lengths:
        dataset = training_set(stream, test_start, days)
        rows += [{"days": days, **measured(kind, fast, dataset, week)} for kind in MODEL_KINDS]
        if days == lengths[0]:
            rows.append({"days": days, **measured(params.train.model_kind, fast, *without_history(dataset, week))})
    return rows


def table(rows: list[dict[str, Any]], default: ModelKind) -> str:
    """The figures as Markdown, the default kind in bold."""
    lines = [
        f"| training | model | features | AP | ROC AUC | CP@{CARDS_PER_DAY} | CPU s |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        kind = f"**{row['kind']}**" if row["kind"] == default else row["kind"]
        lines.append(
            f"| {row['days']} days, {row['rows']:,} rows | {kind} | {row['features']} | {row['average_precision']:.3f}"
            f" | {row['roc_auc']:.3f} | {row[f'card_precision_at_{CARDS_PER_DAY}']:.3f} | {row['cpu_s']:.1f} |"
            + (" leak?" if row["leak_suspected"] else "")
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "file", type=Path, nargs="?", help=f"the transactions as Parquet; else what {FILE_VARIABLE} names"
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--output", type=Path, default=Path(".local/benchmarks/model.json"), help="the figures as JSON")
    chosen = parser.parse_args()
    params = load_params(chosen.params)
    transactions = read_transactions(handbook_file(chosen.file))
    started = time.process_time()
    stream = to_stream(transactions, reports_of(transactions))
    features_s = time.process_time() - started
    rows = benchmark_rows(stream, params, day(TEST_START))
    week = test_week(stream, day(TEST_START))
    print(
        f"test {TEST_START} and the six days after: {len(week.is_fraud):,} rows, {int(week.is_fraud.sum())} frauds,"
        f" known cards left out; label delay {DELAY_DAYS} days; features of {len(transactions):,} rows in"
        f" {features_s:.1f} CPU-s\n"
    )
    print(table(rows, params.train.model_kind))
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(
        json.dumps(
            {
                "test_start": TEST_START,
                "delay_days": DELAY_DAYS,
                "test_rows": len(week.is_fraud),
                "test_frauds": int(week.is_fraud.sum()),
                "features_cpu_s": round(features_s, 2),
                "results": rows,
                "train": msgspec.to_builtins(params.train),
                "versions": {
                    "python": platform.python_version(),
                    **{name: version(name) for name in ("scikit-learn", "numpy", "pandas")},
                },
            },
            indent=1,
        )
        + "\n"
    )
    print(f"\nwritten to {chosen.output}")
    suspects = [row for row in rows if row["leak_suspected"]]
    if suspects:
        print(f"ROC AUC above {LEAK_AUC} in {len(suspects)} of {len(rows)} rows: a feature must know the label")
    return 1 if suspects else 0


if __name__ == "__main__":
    raise SystemExit(main())
