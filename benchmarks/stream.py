"""Transactions per CPU-second of one predictor, compared with Quix Streams and Faust.

``python benchmarks/stream.py [FILE]``.

One broker, one topic of 4 partitions that holds all transactions before anybody begins. Each process is imported,
connected and idle when its CPU time (user and system, all threads) begins to count, and done when everything is in its
output, committed. The predictor does all that it does in production; what the peers leave out is in
``stream_peer.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from centinela.datasets.simulator import Profile, Simulation
from centinela.features.backfill import build_features
from centinela.features.layout import FeatureLayout
from centinela.groups import STREAM
from centinela.kafka.connect import consumer
from centinela.kafka.port import TopicPartition
from centinela.kafka.topic_admin import TopicAdmin, TopicSpec, specifications
from centinela.model.backends import as_served
from centinela.model.bundle import verify
from centinela.model.export import ModelFacts, build_bundle
from centinela.settings import Settings
from centinela.topics import TERMINAL_ACTIVITY, TRANSACTIONS
from centinela_local.testing.temporary_kafka import TemporaryBroker
from centinela_trainer.params import load_params
from centinela_trainer.training.estimators import build_estimator

HERE = Path(__file__).parent
LAYOUT = FeatureLayout(())
PARTITIONS = 4
TRAINED_ON = 60_000
TARGET = 50_000
SILENCE_S = 180.0
QUIET_S = 14
"""Longer than the predictor rests before it imports scikit-learn."""


@dataclass(frozen=True)
class Figure:
    """One run. ``cpu_s``: user and system. ``does``: what the process promises."""

    name: str
    does: str
    transactions: int
    cpu_s: float
    wall_s: float

    @property
    def per_cpu_s(self) -> float:
        return self.transactions / self.cpu_s


class Rig:
    """A broker with the transactions, and the bundle that all score by."""

    def __init__(self, servers: str, folder: Path, file: Path, rows: int) -> None:
        self.servers = servers
        self.folder = folder
        self.rows = rows
        self.settings = Settings(kafka_bootstrap_servers=servers, partitions=PARTITIONS, attributes=())
        self.admin = TopicAdmin(self.settings)
        self._withheld = [spec for spec in specifications(self.settings) if spec.name == TERMINAL_ACTIVITY.name]
        self.admin.create([spec for spec in specifications(self.settings) if spec.name != TERMINAL_ACTIVITY.name])
        subprocess.run(
            [sys.executable, "-m", "centinela", "replay", str(file), "--mapping", "handbook", "--limit", str(rows)],
            check=True,
            stdout=subprocess.DEVNULL,
            env=self.environment({}),
        )
        self.bundle = folder / "models" / "1"
        make_bundle(file, self.bundle)
        self.names = ",".join(verify(self.bundle).feature_names)

    def environment(self, more: dict[str, str]) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CENTINELA_")}
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        return (
            inherited
            | single
            | {"CENTINELA_KAFKA_BOOTSTRAP_SERVERS": self.servers, "CENTINELA_PARTITIONS": str(PARTITIONS)}
            | more
        )

    def release(self) -> None:
        """Give the predictor, which waits for it, its last topic."""
        self.admin.create(self._withheld)

    @contextmanager
    def progress(self, group: str) -> Iterator[Callable[[], int]]:
        """Tells how many transactions *group* has committed."""
        reader = consumer(self.settings, group=group, client="confluent")
        partitions = [TopicPartition(TRANSACTIONS.name, number) for number in range(PARTITIONS)]
        try:
            yield lambda: sum(offset or 0 for offset in reader.committed(partitions).values())
        finally:
            reader.close()


def make_bundle(file: Path, dest: Path) -> None:
    """The default model, boosted trees on all base features, in its serving form."""
    given = pd.read_parquet(file).iloc[:TRAINED_ON]
    table = pd.DataFrame(
        {
            "transaction_id": given["TRANSACTION_ID"].astype(str),
            "user_id": given["CUSTOMER_ID"].astype(str),
            "terminal_id": given["TERMINAL_ID"].astype(str),
            "occurred_at": given["TX_DATETIME"].dt.tz_localize("UTC"),
            "amount": given["TX_AMOUNT"],
        }
    )
    nothing = pd.DataFrame(columns=["transaction_id", "is_fraud", "occurred_at", "reported_at"])
    matrix = as_served(build_features(table, nothing, LAYOUT).to_numpy())
    fitted = int(0.8 * len(matrix))
    estimator = build_estimator("hgb", load_params(HERE.parent / "params.yaml"))
    estimator.fit(matrix[:fitted], given["TX_FRAUD"].to_numpy(np.int64)[:fitted])
    build_bundle(
        estimator,
        matrix[:fitted],
        matrix[fitted:],
        ModelFacts(
            model_name="FraudDetector",
            model_kind="hgb",
            layout_id=LAYOUT.id,
            feature_names=LAYOUT.names,
            threshold=0.5,
            review_threshold=0.2,
            average_precision=0.5,
            dataset_digest="md5:0",
            request_id="benchmark",
            code_commit="0",
            created_at=datetime.now(UTC),
        ),
        dest,
    )
    (dest.parent / "current").symlink_to(dest.name)


def predictor(rig: Rig) -> Figure:
    """The stream as it is, in its default settings."""
    environment = rig.environment(
        {
            "CENTINELA_DATA_DIR": str(rig.folder),
            "CENTINELA_ATTRIBUTES": "[]",
            "CENTINELA_PREDICTOR_PORT": "0",
            "CENTINELA_MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            "CENTINELA_LOG_LEVEL": "WARNING",
            "CENTINELA_LOG_FORMAT": "json",
        }
    )
    with (
        rig.progress(STREAM.name) as done,
        running([sys.executable, "-m", "centinela_predictor", "stream"], environment) as process,
    ):
        settle(process)
        return measured(
            "Centinela",
            "exact windows of users and terminals with late labels, exactly once",
            process,
            rig.release,
            done,
            rig.rows,
        )


def peer(rig: Rig, name: str, does: str, command: Sequence[str], output: str, rows: int) -> Figure:
    """A process that says "ready" and starts on request."""
    rig.admin.create([TopicSpec(output, PARTITIONS, 1, {})])
    with (
        rig.progress(output) as done,
        running(command, rig.environment({"PYTHONPATH": str(HERE)}), talks=True) as process,
    ):
        assert process.stdout is not None
        while (line := process.stdout.readline()) != "ready\n":
            if not line:
                raise RuntimeError(f"{name} ended with {process.wait()}")

        def start() -> None:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

        return measured(name, does, process, start, done, rows)


def measured(
    name: str, does: str, process: subprocess.Popen[str], start: Callable[[], None], done: Callable[[], int], rows: int
) -> Figure:
    """Start, and wait until *done* counts *rows*."""
    watched = psutil.Process(process.pid)
    before, started = cpu_of(watched), time.monotonic()
    start()
    finished, heard = 0, started
    while finished < rows:
        time.sleep(0.05)
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended with {process.returncode}")
        if (now := done()) > finished:
            finished, heard = now, time.monotonic()
        if time.monotonic() - heard > SILENCE_S:
            raise TimeoutError(f"{name} did {finished} of {rows} and no more")
    return Figure(name, does, finished, cpu_of(watched) - before, time.monotonic() - started)


@contextmanager
def running(
    command: Sequence[str], environment: dict[str, str], *, talks: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """*command*, ended at the end."""
    pipe = subprocess.PIPE if talks else None
    process = subprocess.Popen(list(command), env=environment, stdin=pipe, stdout=pipe, text=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def settle(process: subprocess.Popen[str]) -> None:
    """Return when *process* has imported and loaded everything, what it imports late included: nothing but a little
    polling is left."""
    watched, quiet = psutil.Process(process.pid), 0
    while quiet < QUIET_S:
        before = cpu_of(watched)
        time.sleep(1.0)
        if process.poll() is not None:
            raise RuntimeError(f"the predictor ended with {process.returncode}")
        quiet = quiet + 1 if before > 0 and cpu_of(watched) - before < 0.1 else 0


def cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def simulated(folder: Path, rows: int) -> Path:
    """The project's own simulator, in the Handbook's columns."""
    days = -(-rows // 9_000) + 1
    table = pd.concat(Simulation(Profile(customers=5_000, terminals=10_000)).days(days), ignore_index=True)
    path = folder / "simulated.parquet"
    pd.DataFrame(
        {
            "TRANSACTION_ID": np.arange(len(table)),
            "TX_DATETIME": table["occurred_at"].dt.tz_localize(None),
            "CUSTOMER_ID": table["user_id"],
            "TERMINAL_ID": table["terminal_id"],
            "TX_AMOUNT": table["amount"],
            "TX_FRAUD": table["is_fraud"].astype(int),
        }
    ).to_parquet(path)
    return path


def compare(options: argparse.Namespace, folder: Path) -> list[Figure]:
    """All runs: ours *rounds* times, each on its own broker; the peers together with the last."""
    file = options.file or simulated(folder, options.rows)
    figures = []
    for number in range(options.rounds):
        place = folder / str(number)
        place.mkdir()
        broker = TemporaryBroker(place / "kafka")
        broker.start()
        try:
            rig = Rig(broker.bootstrap_servers, place, file, options.rows)
            figures.append(predictor(rig))
            print(
                f"  round {number + 1}: {figures[-1].per_cpu_s:,.0f} transactions a CPU-second",
                file=sys.stderr,
                flush=True,
            )
            if number + 1 == options.rounds and not options.only_ours:
                figures += peers(rig, options)
            rig.admin.close()
        finally:
            broker.stop()
    return figures


def peers(rig: Rig, options: argparse.Namespace) -> Iterator[Figure]:
    """Quix Streams in both of its guarantees, and Faust."""
    model = str(rig.bundle / "model.onnx")
    for guarantee in ("exactly-once", "at-least-once"):
        topic = f"quix-{guarantee}"
        command = [
            options.quix_python,
            str(HERE / "stream_quix.py"),
            rig.servers,
            model,
            rig.names,
            guarantee,
            topic,
            str(rig.folder / topic),
        ]
        yield peer(rig, "Quix Streams", f"a user's day in RocksDB, {guarantee}", command, topic, options.peer_rows)
    command = [
        sys.executable,
        str(HERE / "stream_faust.py"),
        rig.servers,
        model,
        rig.names,
        "faust",
        str(rig.folder / "faust"),
    ]
    yield peer(rig, "Faust", "a user's day in memory, at-least-once", command, "faust", options.peer_rows)


def show(figures: Sequence[Figure]) -> dict[str, Any]:
    """Print the table; what goes into the JSON."""
    ours = [figure for figure in figures if figure.name == "Centinela"]
    rate = statistics.median(figure.per_cpu_s for figure in ours)
    print(f"{'':14}{'transactions':>13}{'CPU s':>9}{'wall s':>9}{'per CPU-s':>12}{'ratio':>8}  what it does")
    for figure in figures:
        print(
            f"{figure.name:14}{figure.transactions:>13,}{figure.cpu_s:>9.2f}{figure.wall_s:>9.2f}"
            f"{figure.per_cpu_s:>12,.0f}{figure.per_cpu_s / rate:>8.2f}"
            f"  {figure.does}"
        )
    print(f"Centinela, median of {len(ours)}: {rate:,.0f} transactions a CPU-second; the target is {TARGET:,}")
    return {
        "target": TARGET,
        "per_cpu_s": rate,
        "runs": [asdict(figure) | {"per_cpu_s": figure.per_cpu_s} for figure in figures],
    }


def main() -> int:
    """Exit code 1 where the target was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "file", type=Path, nargs="?", help="transactions in the Handbook's columns (Parquet); simulated if not given"
    )
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument(
        "--peer-rows", type=int, default=100_000, help="a peer is stopped after so many of the same transactions"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument("--quix-python", default=".local/benchmark-venv/bin/python")
    parser.add_argument("--json", type=Path, default=Path(".local/benchmark-stream.json"))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="benchmark-stream-"))
    try:
        figures = show(compare(options, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if figures["per_cpu_s"] >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
