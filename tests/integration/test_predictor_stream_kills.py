"""The stream on a real broker, killed in the middle of its work: one verdict each, and the features of a run without a
kill."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from centinela.consuming.table_reader import open_table
from centinela.events import LabelReported, TransactionReceived, encode
from centinela.kafka.connect import producer
from centinela.kafka.port import Outgoing
from centinela.kafka.topic_admin import TopicAdmin
from centinela_predictor.settings import PredictorSettings
from tests.support.predictor_world import START, vectors_of_the_whole_table
from tests.support.stream_process import Stream, Verdicts

PHASE = timedelta(days=6)
PER_PHASE = 3_000
PHASES = 3


def traffic(mark: str) -> tuple[list[list[TransactionReceived]], list[LabelReported]]:
    """Phases of six days: the terminals' windows, seven days back, lie wholly in earlier phases."""
    random = np.random.default_rng(3)
    phases, labels = [], []
    for phase in range(PHASES):
        seconds = np.sort(random.integers(0, int(PHASE.total_seconds()), PER_PHASE)).tolist()
        phases.append(
            [
                TransactionReceived(
                    transaction_id=f"{mark}-{phase}-{n:05d}",
                    occurred_at=START + phase * PHASE + timedelta(seconds=second),
                    amount=int(random.integers(1, 90_000)) / 100,
                    user_id=f"{mark}-u{random.integers(0, 150)}",
                    terminal_id=f"{mark}-m{random.integers(0, 20)}",
                    attributes={"v1": float(random.normal())},
                )
                for n, second in enumerate(seconds)
            ]
        )
        labels += [
            LabelReported(
                transaction_id=t.transaction_id,
                is_fraud=True,
                occurred_at=t.occurred_at,
                reported_at=t.occurred_at + timedelta(days=2),
                user_id=t.user_id,
            )
            for t in phases[-1]
            if random.random() < 0.1
        ]
    return phases, labels


@pytest.fixture
def stream(
    broker: str, tmp_path: Path, make_settings: Callable[..., PredictorSettings], unique: str
) -> Iterator[Stream]:
    admin = TopicAdmin(make_settings(PredictorSettings))
    admin.create()
    admin.close()
    running = Stream(tmp_path, broker, f"FraudDetector-{unique}")
    running.start()
    yield running
    running.close()


def test_a_stream_killed_again_and_again_gives_one_verdict_each_with_the_features_of_an_unbroken_run(
    stream: Stream,
    make_settings: Callable[..., PredictorSettings],
    unique: str,
    tmp_path: Path,
) -> None:
    settings = make_settings(PredictorSettings)
    phases, labels = traffic(unique)
    everything = [transaction for phase in phases for transaction in phase]
    sender = producer(settings)
    for label in labels:
        sender.send(Outgoing("labels", encode(label), (label.user_id or "").encode()))
    sender.flush(20)
    table = open_table(settings, ["predictions"])
    verdicts = Verdicts(table, unique, stream)

    for number, phase in enumerate(phases):
        for transaction in phase:
            sender.send(Outgoing("transactions", encode(transaction), (transaction.user_id or "").encode()))
        sender.send(Outgoing("transactions", encode(phase[-1]), (phase[-1].user_id or "").encode()))
        sender.flush(20)
        verdicts.wait_for(number * PER_PHASE + PER_PHASE // 4)
        stream.end(signal.SIGKILL)
        stream.start()
        verdicts.wait_for((number + 1) * PER_PHASE)
    code = stream.end(signal.SIGTERM)
    while verdicts.read():
        pass
    sender.close()
    table.close()

    counts = Counter(verdict.transaction_id for verdict in verdicts.found)
    assert code == 0
    assert counts == Counter(transaction.transaction_id for transaction in everything)
    assert {v.transaction_id: v.features for v in verdicts.found} == vectors_of_the_whole_table(everything, labels)
    assert "snapshot.restored" in stream.output()
    assert list((tmp_path / "state").rglob("*.snapshot"))
