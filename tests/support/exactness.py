"""A file through Kafka and the stream, and every served window compared with the independent computation.

By hand, on the whole of the Handbook's file: ``make exactness HANDBOOK=... ARGS="--kills 2"``.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# An independent client: what it reads, our own code did not.
from confluent_kafka import Consumer, TopicPartition  # noqa: TID251

from centinela.kafka.topic_admin import TopicAdmin
from centinela.settings import Settings
from tests.support.independent_features import independent_features
from tests.support.predictor_world import LAYOUT
from tests.support.served_models import small_bundle

SILENCE_S = 300.0
"""A run without a verdict for this long is given up."""
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Finding:
    """How a run compares. ``mismatches``: rows that differ, per feature. ``missing``, ``doubled``: verdicts."""

    rows: int
    missing: int
    doubled: int
    mismatches: dict[str, int]
    frauds_seen: int
    kills: int
    stream_s: float

    @property
    def exact(self) -> bool:
        return not (self.missing or self.doubled or any(self.mismatches.values()))


class Predictors:
    """Stream processes of one group, on one disk, each of which can be killed and started again."""

    def __init__(self, servers: str, folder: Path, count: int) -> None:
        small_bundle(folder / "models" / "1", LAYOUT)
        (folder / "models" / "current").symlink_to("1")
        self._servers = servers
        self._folder = folder
        self._log = (folder / "stream.log").open("a+")
        self._running = {slot: self._start(slot) for slot in range(count)}

    def kill(self, slot: int) -> None:
        """``kill -9``, and a new one in its place."""
        self._running[slot].send_signal(signal.SIGKILL)
        self._running[slot].wait()
        self._running[slot] = self._start(slot)

    def check(self) -> None:
        """Raise where one has ended by itself."""
        for slot, process in self._running.items():
            if process.poll() is not None:
                raise RuntimeError(f"predictor {slot} ended with {process.returncode}:\n{self.output()[-3_000:]}")

    def output(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
        self._log.close()

    def _start(self, slot: int) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CENTINELA_")} | {
            "CENTINELA_KAFKA_BOOTSTRAP_SERVERS": self._servers,
            "CENTINELA_MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            "CENTINELA_SLOT": str(slot),
            "CENTINELA_DATA_DIR": str(self._folder),
            "CENTINELA_PREDICTOR_PORT": "0",
            "CENTINELA_ATTRIBUTES": json.dumps(LAYOUT.attributes),
            "CENTINELA_LOG_FORMAT": "json",
            "CENTINELA_SNAPSHOT_INTERVAL_S": "2",
            "CENTINELA_GATE_PATIENCE_S": "3600",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "centinela_predictor", "stream"], env=environment, stderr=self._log
        )


def compare_with_independent_computation(
    servers: str, file: Path, folder: Path, *, predictors: int = 1, kills: int = 0
) -> Finding:
    """Replay *file*, a Parquet file of the Handbook's columns in order of time, and compare what is served. The topics
    are empty before.

    All of the file, and its labels, are in the log before the stream begins: what a label adds then does not depend on
    who was faster.

    Args:
        predictors: Processes in the group.
        kills: How often one of them is killed on the way.
    """
    admin = TopicAdmin(Settings(kafka_bootstrap_servers=servers))
    admin.create()
    admin.close()
    replay = [sys.executable, "-m", "centinela", "replay", str(file), "--mapping", "handbook"]
    subprocess.run(
        replay,
        check=True,
        env=os.environ | {"CENTINELA_KAFKA_BOOTSTRAP_SERVERS": servers, "CENTINELA_PARTITIONS": "4"},
        stdout=subprocess.DEVNULL,
    )
    transactions = table_of(file)
    started = time.monotonic()
    running, served = Predictors(servers, folder, predictors), Served(servers, transactions["transaction_id"])
    try:
        for number in range(kills):
            served.read_until((number + 1) * len(transactions) // (kills + 1), running)
            running.kill(number % predictors)
        served.read_until(len(transactions), running)
        took = time.monotonic() - started
        served.read_what_is_left()
    finally:
        running.close()
        served.close()
    expected = independent_features(transactions, labels_of(servers), order="log")
    return served.compared_with(expected, kills, took)


class Served:
    """The vectors in ``predictions``, by row of the file."""

    def __init__(self, servers: str, ids: pd.Series) -> None:
        self._reader = reader_of(servers, "predictions")
        rows = len(ids)
        self._row_of = dict(zip(ids, range(rows), strict=True))
        self._vectors = np.full((rows, len(LAYOUT.names)), np.nan)
        self._times = np.zeros(rows, np.int64)

    def read_until(self, rows: int, running: Predictors) -> None:
        """Read until so many rows have a verdict."""
        heard, next_word = time.monotonic(), time.monotonic() + 30
        while int((self._times > 0).sum()) < rows:
            if self._read():
                heard = time.monotonic()
            running.check()
            if time.monotonic() - heard > SILENCE_S:
                raise TimeoutError(f"{(self._times > 0).sum()} of {rows} verdicts\n{running.output()[-3_000:]}")
            if time.monotonic() > next_word:
                next_word += 30
                print(f"  {(self._times > 0).sum():,} verdicts", file=sys.stderr, flush=True)

    def read_what_is_left(self) -> None:
        """A second verdict would be before the end as it is now."""
        ends = {
            partition.partition: self._reader.get_watermark_offsets(partition, 20)[1]
            for partition in self._reader.assignment()
        }
        deadline = time.monotonic() + SILENCE_S
        while any(place.offset < ends[place.partition] for place in self._reader.position(self._reader.assignment())):
            assert time.monotonic() < deadline, "predictions could not be read to their end"
            self._read()

    def close(self) -> None:
        self._reader.close()

    def compared_with(self, expected: pd.DataFrame, kills: int, took: float) -> Finding:
        """Where the served windows differ from *expected*."""
        mismatches = {}
        for name in expected.columns:
            served = self._vectors[:, LAYOUT.names.index(name)]
            other = expected[name].to_numpy()
            same = np.abs(served - other) <= (0 if "_count_" in name else TOLERANCE)
            mismatches[name] = int((~(same | (np.isnan(served) & np.isnan(other)))).sum())
        frauds = int((expected["terminal_risk_30d"] > 0).sum())
        return Finding(
            len(expected), int((self._times == 0).sum()), int((self._times > 1).sum()), mismatches, frauds, kills, took
        )

    def _read(self) -> int:
        values = [message.value() for message in self._reader.consume(5_000, 1.0) if message.error() is None]
        for event in map(json.loads, values):
            row = self._row_of[event["transaction_id"]]
            self._vectors[row] = np.frombuffer(base64.b64decode(event["features"]), "<f8")
            self._times[row] += 1
        return len(values)


def table_of(file: Path) -> pd.DataFrame:
    """The transactions of *file* as the independent computation wants them."""
    given = pd.read_parquet(file)
    return pd.DataFrame(
        {
            "transaction_id": "hb-" + given["TRANSACTION_ID"].astype(str),
            "user_id": given["CUSTOMER_ID"].astype(str),
            "terminal_id": given["TERMINAL_ID"].astype(str),
            "occurred_at": given["TX_DATETIME"].dt.tz_localize("UTC"),
            "amount": given["TX_AMOUNT"],
        }
    )


def labels_of(servers: str) -> pd.DataFrame:
    """The labels in the topic."""
    reader = reader_of(servers, "labels")
    values: list[dict[str, Any]] = []
    left = sum(
        end - first for first, end in (reader.get_watermark_offsets(partition, 20) for partition in reader.assignment())
    )
    deadline = time.monotonic() + SILENCE_S
    while len(values) < left:
        assert time.monotonic() < deadline, f"{len(values)} of {left} labels"
        values += [json.loads(message.value()) for message in reader.consume(5_000, 1.0) if message.error() is None]
    reader.close()
    frame = pd.DataFrame(values, columns=["transaction_id", "is_fraud", "reported_at"])
    return frame.assign(
        is_fraud=frame["is_fraud"].fillna(value=True).astype(bool),
        reported_at=pd.to_datetime(frame["reported_at"], format="ISO8601", utc=True),
    )


def reader_of(servers: str, topic: str) -> Any:
    """A read_committed reader of all of *topic*."""
    reader = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "exactness",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    numbers = reader.list_topics(topic, 20).topics[topic].partitions
    reader.assign([TopicPartition(topic, number, 0) for number in numbers])
    return reader


def main() -> int:
    """Run by hand; 0 where everything agrees."""
    from centinela_local.testing.temporary_kafka import TemporaryBroker

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--days", type=int, help="only the file's first days")
    parser.add_argument("--predictors", type=int, default=1)
    parser.add_argument("--kills", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="exactness-"))
    broker = TemporaryBroker(folder / "kafka")
    try:
        file = options.file
        if options.days:
            given = pd.read_parquet(file)
            file = folder / "part.parquet"
            given[
                given["TX_DATETIME"] < given["TX_DATETIME"].min().normalize() + pd.Timedelta(days=options.days)
            ].to_parquet(file)
        broker.start()
        (folder / "data").mkdir()
        found = compare_with_independent_computation(
            broker.bootstrap_servers, file, folder / "data", predictors=options.predictors, kills=options.kills
        )
    finally:
        broker.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{found.rows:,} rows x {len(found.mismatches)} features; {options.predictors} predictor(s), {found.kills}"
        f" kill(s); stream {found.stream_s:.0f} s; missing {found.missing}, doubled {found.doubled}; rows with a fraud"
        f" in a terminal's window {found.frauds_seen:,}"
    )
    for name, count in found.mismatches.items():
        print(f"  {name:24} {count:>8} mismatches")
    return 0 if found.exact else 1


if __name__ == "__main__":
    sys.exit(main())
