"""What exact features cost: ``make benchmark-features``, or ``python benchmarks/features.py [HANDBOOK.parquet]``.

``batch``: ``build_features`` on the whole table. ``stream``: users applied, terminals read and updated, in micro-
batches, columns given as arrays (decoding and scoring are measured by the stream's benchmark). ``hot``: one user's
120,000 transactions of 30 days, and reads of one terminal with 10,000 frauds. ``snapshot``: state after the whole
table, converted to bytes and back. Figures are CPU-seconds of this process on one thread, the median of ``--rounds``.

Without a file of the Handbook's transactions (argument or CENTINELA_HANDBOOK) the simulator's are taken.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from centinela.features.assemble import Columns
from centinela.features.backfill import build_features
from centinela.features.keys import hash_ids, minor_units
from centinela.features.layout import BASE_LAYOUT, FeatureLayout
from centinela.features.payload import UNKNOWN
from centinela.features.snapshots.format import pack, unpack
from centinela.features.spec import Feature
from centinela.features.state.id_table import SeenIds
from centinela.features.state.terminals import TerminalState
from centinela.features.state.users import UserState
from centinela.times import DAY_MS, HOUR_MS, MINUTE_MS, series_to_ms

FILE_VARIABLE = "CENTINELA_HANDBOOK"
REPORT_AFTER_MS = 7 * DAY_MS
BATCH_TARGET_S, STREAM_TARGET, HOT_TARGET = 3.0, 300_000, 50_000
HOT_TRANSACTIONS = 120_000
EXTRA = FeatureLayout(
    (),
    (
        Feature("user_terminals_1h", "user", "distinct", HOUR_MS, "terminal_id"),
        Feature("user_std_7d", "user", "std", 7 * DAY_MS),
        Feature("user_ratio_to_mean_30d", "user", "ratio_to_mean", 30 * DAY_MS),
    ),
)


def handbook(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Transactions and labels of the Handbook's file at *path*; each fraud is reported seven days after."""
    raw = pd.read_parquet(path)
    table = pd.DataFrame(
        {
            "transaction_id": raw["TRANSACTION_ID"].astype(str).astype(object),
            "user_id": raw["CUSTOMER_ID"].astype(str).astype(object),
            "terminal_id": raw["TERMINAL_ID"].astype(str).astype(object),
            "occurred_at": pd.to_datetime(raw["TX_DATETIME"], utc=True),
            "amount": raw["TX_AMOUNT"].astype(float),
        }
    )
    return table, _reported(table[raw["TX_FRAUD"] == 1])


def simulated(customers: int = 5_000, terminals: int = 10_000, days: int = 90) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Transactions and labels of the platform's own simulator, about as many as in the Handbook's file."""
    from centinela.datasets.simulator import Profile, Simulation

    table = pd.concat(Simulation(Profile(customers=customers, terminals=terminals)).days(days), ignore_index=True)
    return table, _reported(table[table["is_fraud"] == 1])


def _reported(frauds: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "transaction_id": frauds["transaction_id"],
            "is_fraud": True,
            "occurred_at": frauds["occurred_at"],
            "reported_at": frauds["occurred_at"] + pd.Timedelta(REPORT_AFTER_MS, "ms"),
        }
    )


def columns_of(table: pd.DataFrame, layout: FeatureLayout) -> Columns:
    """*table* in order of time as the arrays that the stream works on."""
    ordered = table.sort_values("occurred_at", kind="stable")
    amounts = ordered["amount"].to_numpy(float)
    terminals = hash_ids(ordered["terminal_id"].tolist())
    return Columns(
        hash_ids(ordered["transaction_id"].tolist()),
        hash_ids(ordered["user_id"].tolist()),
        terminals,
        series_to_ms(ordered["occurred_at"]),
        amounts,
        minor_units(amounts),
        terminals.view(np.int64)[None, :] if layout.stored else np.empty((0, len(table)), np.int64),
        np.full(len(table), UNKNOWN, np.int64),
    )


def cpu(work: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """Median CPU-seconds of *work*, and its last result."""
    spent, result = [], None
    for _ in range(rounds):
        before = time.process_time()
        result = work()
        spent.append(time.process_time() - before)
    return statistics.median(spent), result


def stream(
    columns: Columns, labels: tuple[np.ndarray, ...], batch: int, layout: FeatureLayout, deduplicate: bool
) -> tuple[UserState, TerminalState]:
    """What the stream does with features, in batches of *batch*; the state afterwards."""
    users, terminals, seen = UserState(layout), TerminalState(layout), SeenIds()
    terminals.apply_labels(*labels)
    for first in range(0, len(columns), batch):
        part = columns.take(np.arange(first, min(first + batch, len(columns))))
        if deduplicate:
            seen.admit(part.ids)
        users.apply(part.users, part.times, part.minor, part.stored)
        terminals.read(part.terminals, part.times)
        terminals.apply_activity(part.terminals, part.times, part.ids)
    return users, terminals


def hot(order: str, batch: int, layout: FeatureLayout) -> UserState:
    """The state after one user's transactions, in *order* of ``time``, ``late`` by minutes, or in ``none``."""
    random = np.random.default_rng(1)
    times = np.sort(random.integers(0, 30 * DAY_MS, HOT_TRANSACTIONS))
    if order != "time":
        times = times + random.integers(-3, 3, len(times)) * MINUTE_MS if order == "late" else random.permutation(times)
    amounts = random.integers(1, 100_000, len(times))
    terminals = np.tile(hash_ids([f"m{n}" for n in range(100)]).view(np.int64), len(times) // 100)
    stored = np.stack([terminals] * len(layout.stored)) if layout.stored else np.empty((0, len(times)), np.int64)
    state, user = UserState(layout), hash_ids(["guest"])
    for first in range(0, len(times), batch):
        part = slice(first, first + batch)
        state.apply(np.repeat(user, len(times[part])), times[part], amounts[part], stored[:, part])
    return state


def hot_terminal(frauds: int = 10_000) -> Callable[[], np.ndarray]:
    """Reads one terminal with that many frauds among its transactions of 40 days, as a batch of 2,000 does."""
    random = np.random.default_rng(1)
    times = np.sort(random.integers(0, 40 * DAY_MS, 20 * frauds))
    ids, terminal = np.arange(1, len(times) + 1).astype(np.uint64), hash_ids(["m"])
    state = TerminalState()
    state.apply_activity(np.repeat(terminal, len(times)), times, ids)
    known = times[::20] + random.integers(0, 10 * DAY_MS, frauds)
    state.apply_labels(ids[::20], np.ones(frauds, bool), times[::20], known)
    now = 40 * DAY_MS + np.arange(2_000) * 1_000
    return lambda: state.read(np.repeat(terminal, 2_000), now)


def measure(table: pd.DataFrame, labels: pd.DataFrame, rounds: int) -> dict[str, Any]:
    """All figures."""
    n = len(table)
    seconds, features = cpu(lambda: build_features(table, labels, BASE_LAYOUT), rounds)
    figures: dict[str, Any] = {
        "transactions": n,
        "batch": {"features": features.shape[1], "cpu_s": seconds, "per_cpu_s": n / seconds},
    }
    del features
    reports = (
        hash_ids(labels["transaction_id"].tolist()),
        labels["is_fraud"].to_numpy(bool),
        series_to_ms(labels["occurred_at"]),
        series_to_ms(labels["reported_at"]),
    )
    figures["stream"] = []
    for layout, batch, deduplicate in (
        (BASE_LAYOUT, 2_000, False),
        (BASE_LAYOUT, 8_000, False),
        (BASE_LAYOUT, 2_000, True),
        (EXTRA, 2_000, False),
    ):
        columns = columns_of(table, layout)
        seconds, state = cpu(lambda: stream(columns, reports, batch, layout, deduplicate), rounds)  # noqa: B023
        figures["stream"].append(
            {
                "batch": batch,
                "extra_features": len(layout.extra),
                "ids_deduplicated": deduplicate,
                "cpu_s": seconds,
                "per_cpu_s": n / seconds,
            }
        )
        if layout == BASE_LAYOUT and not deduplicate:
            users, terminals = state
    figures["hot"] = []
    for layout, batch, order in (
        (BASE_LAYOUT, 2_000, "time"),
        (BASE_LAYOUT, 100, "time"),
        (BASE_LAYOUT, 2_000, "late"),
        (BASE_LAYOUT, 2_000, "none"),
        (EXTRA, 2_000, "time"),
    ):
        seconds, _ = cpu(lambda: hot(order, batch, layout), rounds)  # noqa: B023
        figures["hot"].append(
            {
                "batch": batch,
                "extra_features": len(layout.extra),
                "order": order,
                "cpu_s": seconds,
                "per_cpu_s": HOT_TRANSACTIONS / seconds,
            }
        )
    seconds, _ = cpu(hot_terminal(), rounds)
    figures["hot_terminal"] = {"cpu_s": seconds, "per_cpu_s": 2_000 / seconds}
    figures["snapshot"] = {
        "users": _snapshot(users, UserState.from_arrays, rounds),
        "terminals": _snapshot(terminals, TerminalState.from_arrays, rounds),
    }
    return figures


def _snapshot(state: UserState | TerminalState, restore: Callable[[Any], Any], rounds: int) -> dict[str, Any]:
    made, data = cpu(lambda: pack("benchmark", {}, state.arrays()), rounds)
    keys = len(state)
    restored, _ = cpu(lambda: restore(unpack("benchmark", data)[1]), rounds)
    return {
        "keys": keys,
        "memory_bytes": state.nbytes,
        "memory_bytes_per_key": state.nbytes / keys,
        "bytes": len(data),
        "bytes_per_key": len(data) / keys,
        "make_cpu_s": made,
        "restore_cpu_s": restored,
    }


def show(figures: dict[str, Any]) -> None:
    """The figures and the targets as a table."""
    batch = figures["batch"]
    print(f"{figures['transactions']:,} transactions ({figures['source']}); CPU-seconds of one thread, medians\n")
    print(f"{'':50}{'CPU-s':>8}{'per CPU-s':>14}   aim")
    print(
        f"{'batch form, ' + str(batch['features']) + ' features':50}{batch['cpu_s']:8.2f}{batch['per_cpu_s']:14,.0f}  "
        f" < {BATCH_TARGET_S:.0f} CPU-s"
    )
    for one in figures["stream"]:
        notes = "".join(
            [
                ", ids deduplicated" * one["ids_deduplicated"],
                f", {one['extra_features']} extra features" * bool(one["extra_features"]),
            ]
        )
        aim = "" if notes else f"   > {STREAM_TARGET:,}"
        print(
            f"{'stream form, batches of ' + format(one['batch'], ',') + notes:50}"
            f"{one['cpu_s']:8.2f}{one['per_cpu_s']:14,.0f}{aim}"
        )
    for one in figures["hot"]:
        notes = {"time": "", "late": ", late by minutes", "none": ", in no order"}[one["order"]]
        notes += f", {one['extra_features']} extra features" * bool(one["extra_features"])
        print(
            f"{'one user, batches of ' + format(one['batch'], ',') + notes:50}"
            f"{one['cpu_s']:8.2f}{one['per_cpu_s']:14,.0f}   > {HOT_TARGET:,}"
        )
    one = figures["hot_terminal"]
    print(
        f"{'one terminal with 10,000 frauds, read':50}{one['cpu_s']:8.3f}{one['per_cpu_s']:14,.0f}   > {HOT_TARGET:,}"
    )
    for name, one in figures["snapshot"].items():
        print(
            f"\n{one['keys']:,} {name}: {one['memory_bytes'] / 1e6:.1f} MB of memory,"
            f" {one['memory_bytes_per_key']:,.0f} bytes each; snapshot of {one['bytes'] / 1e6:.1f} MB,"
            f" {one['bytes_per_key']:,.0f} bytes each; made in {1000 * one['make_cpu_s']:.0f} ms, restored in"
            f" {1000 * one['restore_cpu_s']:.0f} ms of CPU",
        )


def main(arguments: list[str]) -> int:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "handbook",
        nargs="?",
        type=Path,
        default=os.environ.get(FILE_VARIABLE),
        help=f"Parquet file (or {FILE_VARIABLE})",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path(".local/benchmarks/features.json"))
    options = parser.parse_args(arguments)
    table, labels = handbook(Path(options.handbook)) if options.handbook else simulated()
    figures = {"source": "handbook" if options.handbook else "simulator", **measure(table, labels, options.rounds)}
    show(figures)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
