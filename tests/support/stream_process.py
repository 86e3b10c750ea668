"""``python -m centinela_predictor stream`` for tests that stop, kill and start it again, and what it has written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from centinela.codec import Decoder
from centinela.consuming.table_reader import TableReader
from centinela.events import TransactionScored
from tests.support.predictor_world import LAYOUT
from tests.support.served_models import small_bundle

DEADLINE_S = 90.0


class Stream:
    """``python -m centinela_predictor stream``, which can be killed and started again on the same data."""

    def __init__(self, folder: Path, kafka: str, model_name: str) -> None:
        small_bundle(folder / "models" / "1", LAYOUT)
        (folder / "models" / "current").symlink_to("1")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("CENTINELA_")} | {
            "CENTINELA_KAFKA_BOOTSTRAP_SERVERS": kafka,
            "CENTINELA_MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            "CENTINELA_DATA_DIR": str(folder),
            "CENTINELA_PREDICTOR_PORT": "0",
            "CENTINELA_MODEL_NAME": model_name,
            "CENTINELA_ATTRIBUTES": '["v1", "v2"]',
            "CENTINELA_LOG_FORMAT": "json",
            "CENTINELA_STREAM_BATCH": "100",
            "CENTINELA_SNAPSHOT_INTERVAL_S": "0.3",
        }
        self._log = (folder / "stream.log").open("a+")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "centinela_predictor", "stream"], env=self._environment, stderr=self._log
        )

    def send_signal(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)

    def end(self, how: signal.Signals) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(how)
        return self._process.wait(DEADLINE_S)

    def output(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        self.end(signal.SIGKILL)
        self._log.close()


class Verdicts:
    """What an independent read_committed client finds in ``predictions`` of this test."""

    def __init__(self, table: TableReader, mark: str, stream: Stream) -> None:
        self._table, self._mark, self._stream = table, mark, stream
        self._decoder = Decoder(TransactionScored)
        self.found: list[TransactionScored] = []

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while len(self.found) < count:
            assert time.monotonic() < deadline, (
                f"{len(self.found)} of {count} verdicts\n{self._stream.output()[-3_000:]}"
            )
            self.read()

    def read(self) -> int:
        records = self._table.poll(0.2)
        events = [self._decoder.decode(record.value) for record in records]
        self.found += [event for event in events if event.transaction_id.startswith(self._mark)]
        return len(records)
